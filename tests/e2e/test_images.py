"""Coordinator and participants as real processes over TLS and a relay: nothing that kills or cheats changes the model."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from federation import ALGORITHM, HYPERPARAMETERS, make_plan, write_algorithm, write_datasets
from images import SESSION, Images, eventually, kill, listening_sockets
from transport_worlds import digest

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, PermissionDenied, RemoteProtocolError, Unauthenticated
from nevermined_fl.messages import JoinRequest, Report, Train
from nevermined_fl.simulation import simulate
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers import initial_model

# From the second training on, wait for a file that the test puts into the inputs: so the test knows where everybody is.
GATED = ALGORITHM.replace(
    "        x, y = self.data()\n        w, b",
    "        import pathlib, time\n        self.fits = getattr(self, 'fits', 0) + 1\n"
    "        pathlib.Path(f'fit-{self.fits}').touch()\n"
    "        while self.fits > 1 and not (self.inputs / 'go').exists():\n            time.sleep(0.01)\n"
    "        x, y = self.data()\n        w, b",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Datasets, initial model, plan, and the model that the same session gives in a simulation."""
    folder = tmp_path_factory.mktemp("world")
    datasets = write_datasets(folder, (40, 70, 100))
    algorithm = write_algorithm(folder)
    initial, _ = initial_model(algorithm, HYPERPARAMETERS, 11)
    plan = make_plan(datasets, initial)
    return datasets, initial, plan, simulate(plan, algorithm, datasets, folder / "work", initial=initial).digest


@pytest.fixture
def tmp_path():
    """A short one: the address of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        yield Path(folder)


@pytest.fixture
async def images(tmp_path, world):
    opened = []

    async def make(algorithm=ALGORITHM, **changes):
        datasets, initial, _, _ = world
        plan = make_plan(datasets, initial, **changes)
        opened.append(await Images(tmp_path, plan, algorithm, datasets, initial).open())
        return opened[-1]

    yield make
    for each in opened:
        await each.close()


async def codes(*processes):
    async with asyncio.timeout(120):
        return [await process.wait() for process in processes]


async def test_the_processes_give_the_simulations_model_listen_nowhere_and_outlive_a_restart(images, world):
    run = await images(GATED)
    coordinator, participants = await run.start()
    await run.until(run.coordinator, "round_started", round=2)
    assert len(listening_sockets(coordinator.pid)) == 1
    assert [listening_sockets(participant.pid) for participant in participants] == [[], [], []]
    coordinator.terminate()
    assert await codes(coordinator) == [3]
    coordinator = await run.start_coordinator()
    for member in run.datasets:
        (run.inputs(member) / "go").touch()
    assert await codes(coordinator, *participants) == [0, 0, 0, 0]
    result = run.result()
    assert (result["outcome"], result["model"], result["rounds"]) == ("finished", world[3], 3)
    assert digest((run.coordinator / "outputs" / "model.safetensors").read_bytes()) == world[3]
    contributors = {c["participant"]: (c["examples"], c["rounds"]) for c in result["contributors"]}
    assert contributors == {m: (rows, [1, 2, 3]) for m, rows in zip(run.datasets, (40, 70, 100), strict=True)}
    for member in run.datasets:
        assert [line["outcome"] for line in run.told(run.of(member), "over")] == ["finished"]


async def test_a_coordinator_killed_when_all_have_trained_resumes_and_nobody_trains_again(images, world):
    run = await images(GATED)
    coordinator, participants = await run.start()
    for member in run.datasets:
        await eventually((run.of(member) / "scratch" / "fit-2").exists)
    os.kill(coordinator.pid, signal.SIGSTOP)
    for member in run.datasets:
        (run.inputs(member) / "go").touch()
    for member in run.datasets:
        await run.until(run.of(member), "round_trained", round=2)
    kill(coordinator)
    await coordinator.wait()
    coordinator = await run.start_coordinator()
    assert await codes(coordinator, *participants) == [0, 0, 0, 0]
    assert run.result()["model"] == world[3]
    for member in run.datasets:
        assert [line["round"] for line in run.told(run.of(member), "round_trained")] == [1, 2, 3]
        assert len(run.told(run.of(member), "joined")) == 2


async def test_a_participant_killed_while_training_rejoins_and_the_model_is_the_same(images, world):
    run = await images(GATED)
    coordinator, participants = await run.start()
    victim = next(iter(run.datasets))
    await eventually((run.of(victim) / "scratch" / "fit-2").exists)
    kill(participants[0])
    await participants[0].wait()
    for member in run.datasets:
        (run.inputs(member) / "go").touch()
    again = await run.start_participant(victim)
    assert await codes(coordinator, again, *participants[1:]) == [0, 0, 0, 0]
    assert run.result()["model"] == world[3]
    assert len(run.told(run.of(victim), "joined")) == 2


def without_b(raw):
    return safetensors.dump({"w": safetensors.load(raw)["w"]})


def turned(raw):
    model = safetensors.load(raw)
    return safetensors.dump(model | {"w": model["w"].T})


def with_nan(raw):
    model = safetensors.load(raw)
    model["w"][5, 2] = np.nan
    return safetensors.dump(model)


async def test_strangers_and_cheats_are_refused_and_the_session_goes_on(images, world):
    run = await images(min_participants=2)
    honest, cheat = list(run.datasets)[:2], list(run.datasets)[2]
    coordinator = await run.start_coordinator()
    participants = [await run.start_participant(member) for member in honest]
    stranger, link = run.link(cheat, JobKey.create()), run.link(cheat)
    with pytest.raises(PermissionDenied):
        await stranger.join(JoinRequest("forged", run.proof(cheat)))
    with pytest.raises(Unauthenticated):
        await stranger.join(JoinRequest(cheat, run.proof(cheat, JobKey.create())))
    await link.join(JoinRequest(cheat, run.proof(cheat)))
    task = await link.next_task(after=0, wait=30)
    assert isinstance(task, Train)
    initial = world[1]
    for bad in (without_b(initial), turned(initial), with_nan(initial), initial + b"more", initial[:-9], b"\xff" * 200):
        path = run.folder / "bad"
        path.write_bytes(bad)
        with pytest.raises(DecodeError):
            await link.send_update(round_number=1, digest=digest(bad), path=path)
        report = Report(SESSION, 1, task.model, digest(bad), 10**9, {})
        assert not (await link.report(report)).accepted
    path.write_bytes(initial)
    with pytest.raises(RemoteProtocolError):
        await link.send_update(round_number=1, digest=digest(b"another"), path=path)
    await link.leave()
    await link.close()
    await stranger.close()
    assert await codes(coordinator, *participants) == [0, 0, 0]
    result = run.result()
    assert (result["outcome"], [c["participant"] for c in result["contributors"]]) == ("finished", sorted(honest))
    assert {line["code"] for line in run.told(run.coordinator, "rejected")} >= {"token_signature", "token_signer"}


async def test_exit_codes_say_who_must_act(images, world):
    failing = ALGORITHM.replace(
        "        x, y = self.data()\n        w, b", "        raise KeyError('7319')\n        w, b"
    )
    run = await images(failing, min_participants=1, round_timeout=3.0)
    first, second, third = run.datasets
    job = run.of(first) / "job.json"
    job.write_text(job.read_text().replace('"patience": 30', '"patience": 0.2'))
    assert await codes(await run.start_participant(first)) == [3]
    job.write_text(job.read_text().replace('"patience": 0.2', '"patience": 30'))
    (run.of(second) / "join.jwt").write_text("forged")
    coordinator = await run.start_coordinator()
    refused = await run.start_participant(second)
    assert await codes(refused) == [5]
    lines = (run.of(second) / "raw.log").read_text()
    assert "PermissionDenied" in lines
    (run.of(second) / "join.jwt").write_text(second)
    stopped = await run.start_participant(second)
    await run.until(run.of(second), "joined")
    stopped.terminate()
    assert await codes(stopped) == [3]
    raising = [await run.start_participant(member) for member in run.datasets]
    assert await codes(*raising) == [4, 4, 4]
    assert await codes(coordinator) == [0]
    assert run.result()["outcome"] == "failed"
    [line] = run.told(run.of(third), "algorithm_failed")
    assert (line["kind"], "7319" in str(line)) == ("KeyError", False)
    assert "7319" in (run.of(third) / "raw.log").read_text()
