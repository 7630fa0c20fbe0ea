"""Who is paid when what fails: the table of docs/payments, row by row, over real processes."""

import asyncio
import json

import pytest
from launcher_world import BUYER, PRICES

from nevermined_fl.errors import MetadataError
from nevermined_fl.launcher.app import COMPUTE
from nevermined_fl.launcher.settlement import settle
from nevermined_fl.settings import LimitSettings

ALL = (7, 12, 20)


def paid(world):
    return tuple(world.chain.balance(p.account.address) for p in world.providers)


def first_and_second(world):
    """The participants in the order of the session's members."""
    return sorted((world.hospital, world.clinic), key=lambda provider: provider.did)


def refund(world, provider):
    """What ``nevermined-fl refund`` does once the agreement timed out."""
    world.chain.mine(500)
    agreement = world.agreements[provider.account.address]
    world.chain.abort_by_timeout(BUYER, agreement)
    did = world.compute if provider is world.cloud else provider.did
    price = {"amounts": (PRICES[provider.account.address],), "receivers": (provider.account.address,)}
    world.chain.release(BUYER, agreement, did=did, consumer=BUYER.address, **price)


async def check_nobody_is_paid(world, reason, statuses):
    assert paid(world) == (0, 0, 0)
    assert world.models() == []
    assert {s["status"] for s in statuses} == {"Failed"}
    assert all(reason in s["reason"] for s in statuses), [s["reason"] for s in statuses]
    for provider in world.providers:
        assert world.state(provider) == "locked"
        refund(world, provider)
        assert world.state(provider) == "refunded"
    assert world.chain.balance(BUYER.address) == 1000


async def test_finished_everybody_is_paid_exactly_the_price(world):
    world.begin_session()
    await world.run()
    assert paid(world) == ALL
    assert world.chain.balance(BUYER.address) == 1000 - sum(ALL)


async def test_a_coordinator_that_is_started_so_late_that_a_participant_could_not_be_paid(world):
    """Else the buyer would have its updates in the model and, once the agreement timed out, its money back."""
    world.begin_session()
    early = await world.begin(world.hospital)
    await world.hospital.reach(early, "waiting")
    world.chain.mine(150)  # less than 250 of 400 are left; the plan may take 30 + 2 * 2 * 60 and 10 of margin
    await world.cloud.begin(world.buy(world.cloud), world.session)
    status = await world.hospital.reach(early, "settling")
    assert status["reason"].endswith("blocks were left on the agreement; it may take 280")
    assert world.hospital.launcher.backend.submitted == []


async def test_a_participant_crashed_and_came_back(world):
    world.begin_session(participant_0="lose once")
    statuses = await world.run()
    assert paid(world) == ALL
    assert sorted(s["attempts"] for s in statuses) == [0, 0, 1]


async def test_a_participant_crashed_for_good_and_the_others_finished(world):
    world.begin_session(participant_0="lose", wanted=1)
    first, second = first_and_second(world)
    cloud, one, two = await world.run(world.cloud, first, second)
    assert (one["status"], one["payment"], one["attempts"]) == ("Failed", "locked", 2)
    assert one["reason"] == "the coordinator was out of reach"
    assert (cloud["payment"], two["payment"]) == ("paid", "paid")
    assert world.state(first) == "locked"
    refund(world, first)
    assert world.state(first) == "refunded"


async def test_the_buyer_s_code_raised_in_the_last_round(world):
    """Its earlier updates are in the model, so it is paid, whatever its process said at the end."""
    world.begin_session(participant_0="fail late")
    first, _ = first_and_second(world)
    statuses = await world.run(first, world.cloud, *[p for p in (world.hospital, world.clinic) if p is not first])
    assert paid(world) == ALL
    assert statuses[0]["status"] == "Succeeded"


async def test_the_buyer_s_code_raised_before_it_contributed(world):
    world.begin_session(participant_0="fail", wanted=1)
    first, second = first_and_second(world)
    _, one, _ = await world.run(world.cloud, first, second)
    assert (one["status"], one["reason"], one["payment"]) == ("Failed", "the algorithm failed", "locked")
    assert world.state(first) == "locked"


async def test_a_participant_whose_update_is_not_in_the_model(world):
    world.begin_session(coordinator="only the first")
    first, second = first_and_second(world)
    _, one, two = await world.run(world.cloud, first, second)
    assert (one["payment"], two["payment"]) == ("paid", "locked")
    assert two["reason"] == "no update of this participant is in the model"


async def test_the_coordinator_crashed_and_came_back(world):
    world.begin_session(coordinator="crash once")
    statuses = await world.run()
    assert paid(world) == ALL
    assert statuses[0]["attempts"] == 1


async def test_the_coordinator_crashed_for_good(world):
    world.begin_session(coordinator="crash")
    await check_nobody_is_paid(world, "the coordinator ended with code 1", await world.run())


async def test_too_few_participants(world):
    world.begin_session(coordinator="too few")
    statuses = await world.run()
    await check_nobody_is_paid(world, "too few participants: 1 of at least 2", statuses)


async def test_a_coordinator_that_pays_strangers_pays_nobody(world):
    world.begin_session(coordinator="strangers")
    await check_nobody_is_paid(world, "not those that were admitted", await world.run())


async def test_the_buyer_stopped_the_coordinator(world):
    world.begin_session(coordinator="hang")
    jobs = [(provider, await world.begin(provider)) for provider in world.providers]
    await asyncio.gather(*(provider.reach(job, "running") for provider, job in jobs))
    status, text = await world.cloud.ask("DELETE", f"{COMPUTE}/stop/{jobs[0][1]}")
    assert (status, text) == (200, "Successfully delete")
    statuses = [await provider.wait(job) for provider, job in jobs]
    await check_nobody_is_paid(world, "", statuses)
    assert statuses[0]["reason"] == "stopped by the buyer"


async def test_the_buyer_stopped_a_participant(world):
    world.begin_session(participant_0="hang", wanted=1)
    first, second = first_and_second(world)
    job = await world.begin(first)
    cloud = await world.begin(world.cloud)
    await first.reach(job, "running")
    await first.ask("DELETE", f"{COMPUTE}/stop/{job}")
    await first.reach(job, "settling")
    other = await world.begin(second)
    assert (await world.cloud.wait(cloud))["payment"] == "paid"
    assert (await second.wait(other))["payment"] == "paid"
    stopped = await first.wait(job)
    assert (stopped["status"], stopped["reason"], stopped["payment"]) == ("Failed", "stopped by the buyer", "locked")


async def test_a_participant_that_its_buyer_stops_has_the_time_to_say_so(world):
    world.begin_session(participant_0="polite", wanted=1)
    first, _ = first_and_second(world)
    job = await world.begin(first)
    await world.begin(world.cloud)
    events = first.launcher.work(job) / "events.jsonl"
    await first.until(job, lambda _: events.exists() and "joined" in events.read_text())
    await first.ask("DELETE", f"{COMPUTE}/stop/{job}")
    await first.reach(job, "settling")
    _, lines = await first.ask("GET", f"{COMPUTE}/logs/{job}")
    assert [json.loads(line["content"])["event"] for line in lines] == ["joined", "left"]
    assert "stopped" not in (first.home / "jobs" / job / "raw.log").read_text()  # it ended by itself


class Refusing:
    """A metadata API that answers reads alone, for so many writes."""

    def __init__(self, inner, times):
        self.inner, self.times = inner, times
        self.resolve, self.search = inner.resolve, inner.search

    def publish(self, ddo):
        self.times -= 1
        if self.times >= 0:
            raise MetadataError("the metadata API did not answer")
        self.inner.publish(ddo)


async def test_publishing_was_slow(world):
    await world.cloud.stop()
    world.cloud.metadata = Refusing(world.metadata, 3)
    await world.cloud.start()
    world.begin_session()
    await world.run()
    assert paid(world) == ALL
    assert len(world.models()) == 1


async def test_publishing_failed(world):
    await world.cloud.stop()
    world.cloud.metadata = Refusing(world.metadata, 10**9)
    world.cloud.limits = LimitSettings(job_seconds=1)
    await world.cloud.start()
    world.begin_session()
    statuses = await world.run()
    await check_nobody_is_paid(world, "", statuses)


async def test_the_compute_provider_vanished_and_the_agreements_timed_out(world):
    world.begin_session()
    jobs = [(provider, await world.begin(provider)) for provider in (world.hospital, world.clinic)]
    for provider, job in jobs:
        await provider.reach(job, "waiting")
    world.chain.mine(500)
    statuses = [await provider.wait(job) for provider, job in jobs]
    assert [s["status"] for s in statuses] == ["Failed", "Failed"]
    assert {s["reason"] for s in statuses} == {"the agreement timed out"}
    assert paid(world) == (0, 0, 0)


@pytest.mark.parametrize("late", [False, True])
async def test_what_is_settled_late_is_refunded(world, late):
    """The record came in time, the fulfilment did not: the contract refunds the buyer."""
    world.begin_session()
    job = await world.begin(world.hospital)
    order = world.hospital.launcher.store.get(job).order
    if late:
        world.chain.mine(500)
    for _ in range(2):  # settling again changes nothing
        state = await asyncio.to_thread(settle, world.chain, world.hospital.account, order)
        assert state == ("refunded" if late else "paid")
    assert paid(world) == (0, 0 if late else 12, 0)
    await world.hospital.wait(job) if late else await world.hospital.ask("DELETE", f"{COMPUTE}/stop/{job}")


async def test_an_agreement_without_a_timeout_waits_for_its_session(world):
    world.begin_session(timeout=0)
    await world.run()
    assert paid(world) == ALL
