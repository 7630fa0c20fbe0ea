"""Read this first: a session from three accepted orders to three payments, over real processes and sockets."""

import json

import pytest
from launcher_world import BUYER, CLOUD, INITIAL, PRICES, STRANGER

from nevermined_fl import assets
from nevermined_fl.files import sha256_bytes
from nevermined_fl.launcher.app import COMPUTE


async def check_finished(world, statuses):
    assert [(s["status"], s["stage"], s["payment"]) for s in statuses] == [("Succeeded", "over", "paid")] * 3
    (model,) = world.models()
    assert {s["did"] for s in statuses} == {model["id"]}
    assert world.chain.registration(model["id"]).owner == BUYER.address
    assert assets.files(model)[0].sha256 == sha256_bytes(INITIAL + b" trained").removeprefix("sha256:")
    assert assets.model_metrics(model) == {"accuracy": 0.75}
    for provider in world.providers:
        assert world.chain.balance(provider.account.address) == PRICES[provider.account.address]
    edges = {(e.relation, e.did, e.other, e.agent) for e in world.chain.provenance(model["id"])}
    edges |= {
        (e.relation, e.did, e.other, e.agent)
        for p in (world.hospital, world.clinic)
        for e in world.chain.provenance(p.did)
    }
    # The contract adds the second by itself when a DID changes hands.
    expected = {("wasAssociatedWith", model["id"], "", account.address) for account in (CLOUD, BUYER)}
    for provider in (world.hospital, world.clinic):
        expected.add(("used", provider.did, "", provider.account.address))
        expected.add(("wasDerivedFrom", model["id"], provider.did, provider.account.address))
    assert edges == expected


async def test_a_session_from_orders_to_payments(world):
    world.begin_session()
    statuses = await world.run(world.hospital, world.cloud, world.clinic)  # an early participant waits
    await check_finished(world, statuses)
    hospital = statuses[0]
    assert hospital["dataset"] == world.hospital.did
    assert hospital["isolation"] == "none"
    assert hospital["startedAt"].endswith("Z")
    assert hospital["pods"][0]["podName"] == hospital["id"]


async def test_checkpoints_are_files_of_the_model_s_asset(world):
    world.begin_session(plan=world.plan(rounds=5, round_timeout=20.0, checkpoint_every=2))
    await world.run()
    (model,) = world.models()
    found = assets.files(model)
    names = ["model.safetensors", "card.json", "round-2.safetensors", "round-4.safetensors"]
    assert [file.name for file in found] == names
    bodies = [world.cloud.launcher.content.path(file.sha256).read_bytes() for file in found]
    assert bodies[2:] == [bodies[0] + b"2", bodies[0] + b"4"]


async def test_a_damaged_checkpoint_is_left_out_and_said_and_fails_nothing(world):
    told = (("coordinator", "wrong checkpoint"),)
    world.begin_session(plan=world.plan(rounds=2, checkpoint_every=1, hyperparameters=told))
    await check_finished(world, await world.run())
    (model,) = world.models()
    assert [file.name for file in assets.files(model)] == ["model.safetensors", "card.json", "round-2.safetensors"]
    assert "Checkpoints that were damaged and are not here: 1." in json.dumps(model)


@pytest.mark.bubblewrap
async def test_the_same_with_every_job_shut_in(isolated_world):
    world = isolated_world
    world.begin_session()
    statuses = await world.run()
    await check_finished(world, statuses)
    assert {s["isolation"] for s in statuses} == {"bubblewrap"}


@pytest.mark.parametrize("said", [{}, {"NEVERMINED_FL_LOG": "json"}])
async def test_jobs_log_as_their_launcher_does(world, monkeypatch, said):
    monkeypatch.delenv("NEVERMINED_FL_LOG", raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    world.begin_session()
    statuses = await world.run()
    for provider in world.providers:
        (spec,) = provider.launcher.backend.submitted
        assert set(spec.environment) == {"NEVERMINED_OUTPUTS_PATH", *said}
    for provider, status in zip((world.hospital, world.clinic), statuses[1:], strict=True):
        seen = (provider.home / "jobs" / status["id"] / "raw.log").read_text()
        assert ("log as json" in seen) == bool(said)


async def test_the_buyer_sees_events_and_the_provider_raw_output(world):
    world.begin_session(participant_0="fail late")
    await world.run()
    victim = next(p for p in (world.hospital, world.clinic) if p.did == world.members[0])
    (job,) = victim.launcher.store.all()
    status, lines = await victim.ask("GET", f"{COMPUTE}/logs/{job.id}")
    assert status == 200
    assert [line["podName"] for line in lines] == [job.id]
    event = json.loads(lines[0]["content"])
    assert {"event": "algorithm_failed", "kind": "ValueError", "line": 13}.items() <= event.items()
    raw = (victim.home / "jobs" / job.id / "raw.log").read_text()
    assert "raw output: x" in raw
    assert "raw output" not in json.dumps(lines)


async def test_no_secret_is_in_an_environment_or_a_command(world):
    world.begin_session()
    await world.run()
    for provider in world.providers:
        for spec in provider.launcher.backend.submitted:
            shown = repr(spec)
            for secret in (provider.account.secret.hex(), "eyJ", "BEGIN"):
                assert secret not in shown
            for name in ("job.key", "join.jwt", "tls.key", "job.json", "endpoint.json"):
                path = spec.folder / name
                assert not path.exists() or path.stat().st_mode & 0o077 == 0


async def test_the_compute_api_is_as_upstream(world):
    world.begin_session()
    job = await world.begin(world.hospital)
    assert (await world.hospital.ask("GET", f"{COMPUTE}/list")) == (200, [job])
    agreement = world.agreements[world.hospital.account.address]
    assert (await world.hospital.ask("GET", f"{COMPUTE}/list", params={"agreement": agreement})) == (200, [job])
    assert (await world.hospital.ask("GET", f"{COMPUTE}/list", params={"agreement": "0x1"})) == (200, [])
    _, info = await world.hospital.ask("GET", f"{COMPUTE}/info/{job}")
    assert (info["agreement"], info["consumer"]) == (world.agreements[world.hospital.account.address], BUYER.address)
    assert info["workflowDid"] == world.workflow
    _, root = await world.hospital.ask("GET", "/")
    assert (root["isolation"], root["jobs"]) == ("none", {"live": 1, "all": 1})
    assert (await world.hospital.ask("DELETE", f"{COMPUTE}/stop/{job}"))[0] == 200
    for method, path in (("GET", "status"), ("GET", "logs"), ("GET", "info"), ("DELETE", "stop")):
        status, body = await world.hospital.ask(method, f"{COMPUTE}/{path}/nvm-fl-nothing")
        assert (status, body["check"]) == (404, "execution_exists")


@pytest.mark.parametrize("path", ["/", f"{COMPUTE}/list", "/fl/approvals", "/nowhere"])
async def test_nobody_but_the_gateway_is_served(world, path):
    for secret in ("", "wrong", "a secret of the gateway'", "\u00e4"):
        status, body = await world.hospital.ask("GET", path, secret=secret)
        assert (status, body["check"]) == (401, "launcher_secret")


async def test_an_upstream_gateway_says_less(world):
    """It sends an agreement and a workflow; who bought what is the chain's to say."""
    world.begin_session()
    body = {
        "serviceAgreementId": world.agreements[world.hospital.account.address],
        "workflow": world.metadata.resolve(world.workflow),
    }
    status, job = await world.hospital.ask("POST", f"{COMPUTE}/init", json=body)
    assert status == 200
    assert (await world.hospital.ask("GET", f"{COMPUTE}/info/{job}"))[1]["consumer"] == BUYER.address
    status, answer = await world.clinic.init(world.agreements[world.clinic.account.address], world.workflow, STRANGER)
    assert (status, answer["check"]) == (403, "consumer_is_caller")
