"""A launcher that is restarted goes on where it was."""

import asyncio
import shutil

from launcher_world import CLINIC, HOSPITAL, PRICES

from nevermined_fl.launcher.certificates import ensure_certificate


async def test_a_waiting_participant_waits_on(world):
    world.begin_session()
    job = await world.begin(world.hospital)
    await world.hospital.reach(job, "waiting")
    key = (world.hospital.launcher.work(job) / "job.key").read_text()
    await world.hospital.stop()
    await world.hospital.start()
    assert (await world.hospital.status(job))["status"] == "Pending"
    await world.hospital.reach(job, "waiting")
    assert (world.hospital.launcher.work(job) / "job.key").read_text() == key
    await world.run(world.cloud, world.clinic)
    assert (await world.hospital.wait(job))["payment"] == "paid"
    # No data and no key stay behind.
    left = {path.name for path in world.hospital.launcher.work(job).iterdir()}
    assert left == {"job.json", "events.jsonl"}


async def test_a_running_coordinator_keeps_port_and_certificate(world):
    world.begin_session()
    job = await world.begin(world.cloud)
    await world.cloud.reach(job, "running")
    before = world.cloud.launcher.store.get(job).port, ensure_certificate(world.cloud.launcher.work(job), "127.0.0.1")
    await world.cloud.stop()
    await world.cloud.start()
    await world.cloud.reach(job, "running")
    after = world.cloud.launcher.store.get(job).port, ensure_certificate(world.cloud.launcher.work(job), "127.0.0.1")
    assert after == before
    statuses = await world.run(world.hospital, world.clinic)
    assert {s["payment"] for s in statuses} == {"paid"}
    assert (await world.cloud.wait(job))["status"] == "Succeeded"


async def test_a_running_participant_joins_again(world):
    world.begin_session()
    job, cloud = await world.begin(world.hospital), await world.begin(world.cloud)
    await world.hospital.reach(job, "running")
    await world.hospital.stop()
    await world.hospital.start()
    other = await world.begin(world.clinic)
    for provider, each in ((world.hospital, job), (world.cloud, cloud), (world.clinic, other)):
        assert (await provider.wait(each))["payment"] == "paid"


async def test_a_model_is_published_once_however_often_it_is_begun(world):
    """The launcher ends between the model's publishing and the session's last record."""
    world.begin_session()
    issue = world.cloud.launcher.records.issue
    reached = asyncio.Event()

    def interrupted(session, **fields):
        if fields["phase"] == "finished":
            reached.set()
            raise asyncio.CancelledError
        return issue(session, **fields)

    world.cloud.launcher.records.issue = interrupted
    jobs = [(p, await world.begin(p)) for p in world.providers]
    await asyncio.wait_for(reached.wait(), 20)
    (first,) = world.models()
    await world.cloud.stop()
    await world.cloud.start()
    for provider, job in jobs:
        assert (await provider.wait(job))["payment"] == "paid"
    assert world.models() == [first]


async def test_a_settling_participant_is_paid_after_its_restart(world):
    world.begin_session(participant_0="fail late")
    job = await world.begin(world.hospital)
    other = await world.begin(world.clinic)
    await world.hospital.reach(job, "waiting")
    await world.clinic.stop()
    cloud = await world.begin(world.cloud)
    await world.hospital.reach(job, "running")
    await world.hospital.stop()
    await world.clinic.start()
    await world.hospital.start()
    await world.cloud.wait(cloud)
    for provider, each in ((world.hospital, job), (world.clinic, other)):
        assert (await provider.wait(each))["payment"] == "paid"
    assert world.chain.balance(HOSPITAL.address) == PRICES[HOSPITAL.address]
    assert world.chain.balance(CLINIC.address) == PRICES[CLINIC.address]


async def test_an_error_of_ours_ends_one_job_alone(world, caplog):
    world.begin_session(wanted=1)
    jobs = [(p, await world.begin(p)) for p in (world.hospital, world.clinic)]
    for provider, job in jobs:
        await provider.reach(job, "waiting")
    lost = world.hospital.launcher.folder(jobs[0][1])
    await world.hospital.stop()
    shutil.rmtree(lost)
    lost.write_text("a file where a folder should be")
    await world.hospital.start()
    broken = await world.hospital.wait(jobs[0][1])
    assert (broken["status"], broken["stage"]) == ("Error", "over")
    assert str(lost) not in broken["reason"]
    await world.run(world.cloud)
    assert (await world.clinic.wait(jobs[1][1]))["payment"] == "paid"
