"""One session with the images that are shipped: what they need is there, and no more."""

import json

import pytest
from federation import ALGORITHM, HYPERPARAMETERS, make_plan, plain_fedavg, write_algorithm, write_datasets
from launcher_world import CLOUD, open_world

from nevermined_fl.launcher.app import COMPUTE
from nevermined_fl.trainers import initial_model


@pytest.mark.bubblewrap
async def test_a_session_of_the_real_images_shut_in(tmp_path, first_port):
    algorithm = write_algorithm(tmp_path)
    initial, _ = initial_model(algorithm, HYPERPARAMETERS, 11)
    tables = list(write_datasets(tmp_path, (40, 70)).values())
    data = {"hospital": tables[0].read_text(), "clinic": tables[1].read_text()}
    options = {"trainer": ALGORITHM.encode(), "initial": initial, "data": data, "isolated": True, "tiny": False}
    options["allow_no_isolation"] = False
    async with open_world(tmp_path / "world", first_port, **options) as world:
        plan = make_plan(world.members, initial, rounds=2)
        world.begin_session(plan=plan)
        statuses = await world.run(world.hospital, world.clinic, world.cloud, seconds=90)
        assert [(s["status"], s["payment"], s["reason"]) for s in statuses] == [("Succeeded", "paid", "")] * 3
        assert {s["isolation"] for s in statuses} == {"bubblewrap"}
        # Not the job alone: inside of it the buyer's code must be shut in once more.
        body = json.loads((world.hospital.launcher.work(statuses[0]["id"]) / "job.json").read_text())
        assert body["isolation"] == "required"
        model = world.cloud.launcher.content.path(
            world.models()[0]["service"][0]["attributes"]["main"]["files"][0]["checksum"]
        )
        datasets = {p.did: p.home / "data" / "rows.csv" for p in (world.hospital, world.clinic)}
        assert model.read_bytes() == plain_fedavg(plan, algorithm, datasets, tmp_path)
        _, lines = await world.hospital.ask("GET", f"{COMPUTE}/logs/{statuses[0]['id']}")
        assert {"joined", "round_trained", "over"} <= {json.loads(line["content"])["event"] for line in lines}
        assert world.chain.balance(CLOUD.address) == 7
