"""Whole sessions over the real network: who is paid, who sees what, and what no fault changes.

Sessions take seconds each, so every fixture lives through one and notes what happened; the tests ask about it.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from market_world import CANARIES, RAISING_LINE, ROWS, TOKEN, eventually, kill

from nevermined_fl.devnet.processes import alive, start_ticks
from nevermined_fl.devnet.watch import ParticipantWatch
from nevermined_fl.errors import SessionFailed, SettingsError
from nevermined_fl.simulation import simulate

pytestmark = pytest.mark.xdist_group("devnet")


# --- a session in which nothing goes wrong


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory):
    """From purchase to fetched model, with a stranger asking about it meanwhile."""
    deal = world.publish()
    first, url = world.datasets[0], world.gateway(world.datasets[0])
    before = balances(world)
    world.order(deal)
    repeated = world.buyer.order_all(deal.session)
    paid_in = balances(world)
    agreement = deal.agreements[first]
    early = world.execute(url, agreement, deal.workflow).refusal
    world.buyer.request_review(deal.workflow)
    world.approve()
    assets = world.assets()
    with ParticipantWatch(world.state.pid) as watch:
        world.start(deal)
        again = world.execute(url, agreement, deal.workflow).refusal
        strangers = stranger_asks(world, deal, url, first)
        record = world.buyer.wait(deal.session)
        jobs = world.over(deal)
    return SimpleNamespace(
        deal=deal,
        early=early,
        repeated=repeated,
        again=again,
        later=world.execute(url, agreement, deal.workflow).refusal,
        strangers=strangers,
        record=record,
        jobs=jobs,
        watch=watch,
        balances=(before, paid_in, balances(world)),
        new_assets=world.assets() - assets,
        edges=world.buyer.provenance(record.model),
        fetched=world.buyer.fetch(record.model, tmp_path_factory.mktemp("models")),
    )


def stranger_asks(world, deal, url, did):
    """With an agreement of his own at the same provider, and with the buyer's: refusals by verb and agreement."""
    own, account = world.buy(did, buyer=world.stranger), world.stranger.market.account
    found = {}
    for verb in ("status", "logs", "stop"):
        execution = deal.executions[did]
        found[verb, "his own"] = world.compute_call(verb, url, own, execution, account=account).refusal
        found[verb, "the buyer's"] = world.compute_call(
            verb, url, deal.agreements[did], execution, account=account
        ).refusal
    return found


def balances(world):
    sellers = {did: world.seller(did).address for did in (world.service, *world.datasets)}
    return {name: world.chain.balance(address) for name, address in sellers.items()} | {"buyer": world.buyer.balance()}


def test_an_algorithm_that_its_provider_has_not_approved_does_not_run(plain):
    assert plain.early == (403, "algorithm_approved")


def test_an_agreement_runs_once_at_a_time_and_not_again_when_it_is_over(plain):
    assert plain.again == (409, "one_live_execution")
    assert plain.later == (403, "not_settled")


def test_an_order_that_is_given_twice_buys_once(plain):
    assert plain.repeated == plain.deal.agreements


def test_a_stranger_neither_sees_nor_stops_what_somebody_else_runs(plain):
    for (verb, whose), refusal in plain.strangers.items():
        check = "execution_of_agreement" if whose == "his own" else "consumer_is_caller"
        assert refusal == (403, check), (verb, whose)


def test_everybody_who_contributed_is_paid_exactly_its_price(world, plain):
    before, paid_in, after = plain.balances
    total = sum(world.prices.values()) * TOKEN
    assert before["buyer"] - paid_in["buyer"] == before["buyer"] - after["buyer"] == total
    for did, price in world.prices.items():
        assert (paid_in[did] - before[did], after[did] - before[did]) == (0, price * TOKEN)
    assert set(world.states(plain.deal).values()) == {"paid"}
    assert {(job["status"], job["payment"]) for job in plain.jobs.values()} == {("Succeeded", "paid")}


def test_a_session_makes_exactly_one_asset_and_it_is_the_buyer_s(world, plain):
    assert plain.new_assets == {plain.record.model}
    assert world.buyer.show(plain.record.model).owner == world.buyer.address
    listed = {(each.did, each.agreement) for each in plain.record.contributors}
    assert listed == {(did, plain.deal.agreements[did]) for did in world.datasets}


def test_the_fetched_model_is_the_one_that_was_published(plain):
    assert plain.fetched.sha256 == plain.record.model_sha256
    card = json.loads((plain.fetched.folder / "card.json").read_text())
    assert (card["session"], card["model"]) == (plain.deal.session, plain.record.model_sha256)


def test_provenance_says_who_made_the_model_and_from_what(world, plain):
    model = plain.record.model
    wanted = {("wasAssociatedWith", model, "", world.compute.address)}
    for did in world.datasets:
        address = world.seller(did).address
        wanted |= {("used", did, "", address), ("wasDerivedFrom", model, did, address)}
    assert {(edge.relation, edge.did, edge.other, edge.agent) for edge in plain.edges} == wanted


def test_participants_listen_nowhere(plain):
    assert plain.watch.seen >= 3
    assert plain.watch.listening == 0


def test_what_an_algorithm_prints_stays_with_the_data_s_provider(world, plain):
    for did, canary in zip(world.datasets, CANARIES, strict=True):
        assert f"secret {canary}" in world.seller(did).logs(plain.deal.executions[did])
    seen = everything_that_the_buyer_sees(world, plain)
    assert "round_trained" in seen
    assert [canary for canary in CANARIES if canary[:8] in seen] == []


def everything_that_the_buyer_sees(world, plain):
    told = [world.events(plain.deal, did) for did in plain.deal.executions]
    ddos = [world.buyer.show(did).ddo for did in (*world.datasets, plain.record.model)]
    card = (plain.fetched.folder / "card.json").read_text()
    return json.dumps([told, ddos, plain.jobs]) + card + repr(plain.record)


# --- one session, every fault


@pytest.fixture(scope="module")
def stormy(world, plain, tmp_path_factory):
    """A session during which everything stops or is killed once; ``plain`` is there for the approval."""
    del plain
    deal = world.publish(gate=2)
    with ThreadPoolExecutor(1) as pool:
        calm = pool.submit(
            simulate,
            deal.plan,
            world.trainer,
            dict(zip(world.datasets, open_gates(world, tmp_path_factory.mktemp("calm")), strict=True)),
            tmp_path_factory.mktemp("simulation"),
            initial=world.algorithm.initial,
        )
        with world.stopped("metadata", 5.0):
            world.order(deal)
        with world.stopped("chain", 5.0):
            world.start(deal)
        simulated = calm.result()
    first, second, _ = world.datasets
    for did in world.datasets:
        world.in_fit(deal, did, 2)
    story = SimpleNamespace(deal=deal, simulated=simulated)
    story.untouched = kill_gateways(world, deal)
    story.coordinators = kill_job(world, deal, world.service, "coordinator_image")
    story.participants = kill_job(world, deal, first, "participant_image")
    world.kill_server(f"{world.seller(second).settings.name}-launcher")
    for did in world.datasets:
        world.open_gate(deal, did)
    story.record = world.buyer.wait(deal.session)
    story.jobs = world.over(deal)
    return story


def open_gates(world, folder):
    """The data as folders in which the trainer's gate is open."""
    for number, file in enumerate(world.files):
        part = folder / str(number)
        part.mkdir()
        (part / file.name).write_bytes(file.read_bytes())
        (part / "go").touch()
        yield part


def kill_gateways(world, deal):
    """Kill two gateways; whether the processes of all jobs are the same as before."""
    jobs = [job_of(world, deal, did) for did in deal.executions]
    ticks = [start_ticks(pid) for pid in jobs]
    for name in ("compute", world.seller(world.datasets[0]).settings.name):
        world.kill_server(f"{name}-gateway")
    return [alive(*each) for each in zip(jobs, ticks, strict=True)]


def kill_job(world, deal, did, image):
    """Kill an execution's own process and wait for its successor; both pids."""
    execution = deal.executions[did]
    pid = world.job(execution, image)
    kill(pid)
    return pid, eventually(lambda: world.job(execution, image), what=f"a new {image}")


def job_of(world, deal, did):
    image = "coordinator_image" if did == world.service else "participant_image"
    return world.job(deal.executions[did], image)


def test_a_chain_and_a_metadata_api_that_stand_still_are_waited_for(stormy):
    assert set(stormy.deal.agreements) == set(stormy.deal.executions)
    assert stormy.record.outcome == "finished"


def test_no_job_notices_that_its_gateway_was_killed(stormy):
    assert stormy.untouched == [True] * 4


def test_a_killed_coordinator_goes_on_and_its_model_is_the_same(world, stormy):
    before, after = stormy.coordinators
    assert before != after
    assert stormy.record.model_sha256 == stormy.simulated.digest
    rounds = [event["round"] for event in world.events(stormy.deal, world.service, "round_committed")]
    assert sorted(set(rounds)) == [1, 2]


def test_a_killed_participant_comes_back_and_contributes(world, stormy):
    did = world.datasets[0]
    before, after = stormy.participants
    assert before != after
    assert len(world.events(stormy.deal, did, "joined")) >= 2
    assert stormy.jobs[did]["status"] == "Succeeded"


def test_the_job_of_a_killed_launcher_goes_on_and_is_paid(world, stormy):
    did = world.datasets[1]
    assert (stormy.jobs[did]["status"], stormy.jobs[did]["payment"]) == ("Succeeded", "paid")


def test_after_all_faults_everybody_contributed_and_is_paid(world, stormy):
    assert {each.did for each in stormy.record.contributors} == set(world.datasets)
    assert set(world.states(stormy.deal).values()) == {"paid"}


# --- sessions that go wrong, and the money


@pytest.fixture(scope="module")
def wrong(world, plain):
    """Three sessions at once: too few came; the coordinator was stopped; one was stopped and another's code raised."""
    del plain
    first, second, third = world.datasets
    # No metrics: without an evaluation, nobody waits for the one that was stopped more than once a round.
    partial = world.publish(
        min_participants=1, gate=1, failing_fit=2, failing_rows=ROWS[2], round_timeout=6.0, metrics=()
    )
    lonely = world.publish(first, second, selection_timeout=6.0)
    halted = world.publish(second, gate=1)
    story = SimpleNamespace(partial=partial, lonely=lonely, halted=halted, before=balances(world))
    assets = world.assets()
    run(world, halted)
    world.in_fit(halted, second, 1)
    story.halted_participant = world.job(halted.executions[second], "participant_image")
    stop(world, halted, world.service)
    run(world, partial)
    for did in (second, third):
        world.open_gate(partial, did)
    world.in_fit(partial, first, 1)
    stop(world, partial, first)
    run(world, lonely, world.service, first)
    story.reasons = {"lonely": reason_of(world, lonely), "halted": reason_of(world, halted)}
    story.record = world.buyer.wait(partial.session)
    story.jobs = {name: world.over(getattr(story, name)) for name in ("lonely", "halted", "partial")}
    story.new_assets = world.assets() - assets
    return story


@pytest.fixture(scope="module")
def refunded(world, wrong):
    """The chain goes on until all agreements have timed out, and the buyer asks for what was not earned."""
    deals = (wrong.lonely, wrong.halted, wrong.partial)
    unpaid = [
        agreement for deal in deals for did, agreement in deal.agreements.items() if world.states(deal)[did] == "locked"
    ]
    conditions = [world.chain.agreement(agreement).compute for agreement in unpaid]
    story = SimpleNamespace(unpaid=unpaid, early={}, expires=[condition.expires() for condition in conditions])
    story.before, story.block = balances(world), world.chain.block_number()
    for agreement in unpaid:
        with pytest.raises(SettingsError) as refusal:
            world.buyer.refund(agreement)
        story.early[agreement] = refusal.value
    story.between = balances(world)
    world.mine(max(story.expires) - world.chain.block_number() + 1)
    story.states = [world.buyer.refund(agreement) for agreement in unpaid]
    story.after = balances(world)
    return story


def run(world, deal, *dids):
    world.order(deal, *dids)
    world.start(deal)


def stop(world, deal, did):
    url = world.gateway(did)
    answer = world.compute_call("stop", url, deal.agreements[did], deal.executions[did])
    assert answer.status == 200


def reason_of(world, deal):
    with pytest.raises(SessionFailed) as failure:
        world.buyer.wait(deal.session)
    return str(failure.value)


def test_a_session_with_too_few_participants_says_so(wrong):
    # On a busy machine even the one that was started may not have come by then.
    assert re.search(r"too few participants: [01] of at least 2 by the deadline$", wrong.reasons["lonely"])


def test_a_session_whose_coordinator_was_stopped_says_so(world, wrong):
    assert "stopped by the buyer" in wrong.reasons["halted"]
    assert wrong.jobs["halted"][world.datasets[1]]["status"] == "Failed"


def test_a_session_without_a_model_publishes_nothing_and_pays_nobody(world, wrong):
    assert wrong.new_assets == {wrong.record.model}
    for deal in (wrong.lonely, wrong.halted):
        assert set(world.states(deal).values()) == {"locked"}


def test_the_participants_of_a_stopped_coordinator_end(world, wrong):
    assert wrong.halted_participant
    assert world.job(wrong.halted.executions[world.datasets[1]], "participant_image") == 0


def test_who_was_stopped_before_it_contributed_is_not_paid_and_the_others_are(world, wrong):
    first, second, third = world.datasets
    states = world.states(wrong.partial)
    assert states == {first: "locked", second: "paid", third: "paid", world.service: "paid"}
    assert {each.did for each in wrong.record.contributors} == {second, third}
    assert "stopped by the buyer" in wrong.jobs["partial"][first]["reason"]
    assert world.job(wrong.partial.executions[first], "participant_image") == 0


def test_code_that_raises_at_the_last_round_shows_its_buyer_type_and_line_alone(world, wrong):
    third, canary = world.datasets[2], CANARIES[2]
    (failure,) = world.events(wrong.partial, third, "algorithm_failed")
    assert (failure["kind"], failure["line"]) == ("ValueError", RAISING_LINE)
    told = [world.events(wrong.partial, did) for did in wrong.partial.executions]
    told.append([wrong.jobs, repr(wrong.record)])
    assert canary[:8] not in json.dumps(told)
    raw = world.seller(third).logs(wrong.partial.executions[third])
    assert f"ValueError: {canary}" in raw
    assert "Traceback" in raw


def test_a_refund_before_the_timeout_is_refused_and_says_when(refunded):
    for (agreement, refusal), expires in zip(refunded.early.items(), refunded.expires, strict=True):
        assert f"{agreement} times out after block {expires}" in refusal.message
        assert "minutes" in refusal.hint
    assert refunded.between == refunded.before


def test_after_the_timeout_a_refund_returns_exactly_the_money(world, wrong, refunded):
    first, second, _ = world.datasets
    price, compute = world.prices, world.prices[world.service]
    owed = (compute + price[first]) + (compute + price[second]) + price[first]
    assert refunded.states == ["refunded"] * 5
    assert refunded.after["buyer"] - refunded.before["buyer"] == owed * TOKEN
    assert {**refunded.after, "buyer": 0} == {**refunded.before, "buyer": 0}
    spent = compute + price[second] + price[world.datasets[2]]
    assert wrong.before["buyer"] - refunded.after["buyer"] == spent * TOKEN


def test_a_refund_is_given_once(world, refunded):
    with pytest.raises(SettingsError, match="is refunded: there is nothing to refund"):
        world.buyer.refund(refunded.unpaid[0])


def test_an_agreement_without_a_timeout_says_that_no_refund_exists(world):
    agreement = world.buy(world.datasets[0], timeout=0)
    with pytest.raises(SettingsError, match="without a timeout, so no refund exists"):
        world.buyer.refund(agreement)
    assert world.chain.agreement(agreement).state() == "locked"
