"""Sessions beyond the plain one, over the real network: begun by a participant, stopped early, and continued later.

The first one uses what a plan can say beside its rounds; the second begins with the first one's model.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from market_world import Deal, eventually, plan_settings

from nevermined_fl import assets
from nevermined_fl.errors import PermissionDenied
from nevermined_fl.marketplace.publishing import COORDINATOR
from nevermined_fl.session.plan import EarlyStop

pytestmark = pytest.mark.xdist_group("devnet")


def begin(world, settings, algorithm):
    """Publish a session with these settings, buy it, and have it approved and started."""
    datasets = tuple(world.datasets)
    plan = world.buyer.check_plan(algorithm, datasets=datasets, compute=world.service, settings=settings)
    session = world.buyer.publish_session(algorithm, datasets=datasets, compute=world.service, settings=settings)
    deal = Deal(session, world.buyer.publish_workflow(session, algorithm=algorithm.did), plan)
    world.buyer.request_review(deal.workflow)
    world.approve(algorithm)
    world.order(deal)
    world.start(deal)
    return deal


@pytest.fixture(scope="module")
def first(world, tmp_path_factory):
    """Begun by a participant, changes of eight bits, one asked more than needed, and over when it is good enough."""
    settings = plan_settings(
        gate=1,
        rounds=9,
        min_participants=2,
        participants_ratio=0.5,
        over_selection=1.5,
        repeats=2,
        late_updates="use",
        precision="int8",
        initial_model="participant",
        early_stop=EarlyStop("accuracy", target=0.0),
        checkpoint_every=1,
    )
    # A file of its own: what is approved here must not be approved for others' sessions.
    trainer = tmp_path_factory.mktemp("trainer") / "trainer.py"
    trainer.write_text(world.trainer.read_text() + "\n# Trains sessions that a participant begins.\n")
    algorithm = world.buyer.publish_algorithm(
        trainer, gateway=world.gateway(world.datasets[0]), settings=settings, name="begun by a participant"
    )
    deal = begin(world, settings, algorithm)
    story = SimpleNamespace(deal=deal, algorithm=algorithm)
    story.progress = eventually(lambda: training(world, deal), what="everybody in training")
    for did in world.datasets:
        world.open_gate(deal, did)
    story.record = world.buyer.wait(deal.session)
    story.jobs = world.over(deal)
    story.fetched = world.buyer.fetch(story.record.model, tmp_path_factory.mktemp("first"))
    story.card = json.loads((story.fetched.folder / "card.json").read_text())
    return story


def training(world, deal):
    """The coordinator's progress once it says that all three train."""
    progress = world.status(deal, world.service)["progress"] or {}
    states = [row["state"] for row in progress.get("members", ())]
    return progress if states == ["training"] * 3 else None


@pytest.fixture(scope="module")
def second(world, first, tmp_path_factory):
    """It continues from the first one's model, in whole weights."""
    settings = plan_settings(rounds=1, continue_from=first.record.model)
    deal = begin(world, settings, first.algorithm)
    record = world.buyer.wait(deal.session)
    jobs = world.over(deal)
    fetched = world.buyer.fetch(record.model, tmp_path_factory.mktemp("second"))
    card = json.loads((fetched.folder / "card.json").read_text())
    return SimpleNamespace(deal=deal, record=record, jobs=jobs, card=card)


def test_status_says_which_round_it_is_and_who_is_late(world, first):
    progress = first.progress
    assert (progress["phase"], progress["round"], progress["rounds"]) == ("reporting", 1, 9)
    assert (progress["updates"], progress["target"], progress["problem"]) == (0, 2, "")
    assert {row["participant"] for row in progress["members"]} == set(world.datasets)
    assert first.jobs[world.service]["progress"]["phase"] == "finished"


def test_the_first_model_was_a_participant_s(world, first):
    assert first.algorithm.initial == b""
    assert first.card["plan"]["parameters"]["initialModel"] == "participant"
    (event,) = world.events(first.deal, world.service, "initialized")
    assert event["model"] == first.card["initialModel"]


def test_a_session_that_is_good_enough_ends_and_says_why(world, first):
    (event,) = world.events(first.deal, world.service, "stopped_early")
    assert (event["round"], event["code"]) == (1, "target")
    assert len(first.card["rounds"]) == 1


def test_who_contributed_to_a_session_that_stopped_early_is_paid(world, first):
    contributors = {each.did for each in first.record.contributors}
    assert 2 <= len(contributors) <= 3
    paid = {did for did, state in world.states(first.deal).items() if state == "paid"}
    assert paid == contributors | {world.service}
    assert {did for did, job in first.jobs.items() if job["payment"] == "paid"} == paid
    assert {job["payment"] for did, job in first.jobs.items() if did not in paid} <= {"locked"}


def test_the_checkpoint_of_the_only_round_is_the_model(first):
    assert (first.fetched.folder / "round-1.safetensors").read_bytes() == first.fetched.path.read_bytes()


def test_a_session_continues_from_the_model_of_another(world, first, second):
    assert second.card["initialModel"] == first.record.model_sha256 != second.record.model_sha256
    assert second.card["plan"]["parameters"]["initialAsset"] == first.record.model
    assert set(world.states(second.deal).values()) == {"paid"}
    assert {job["status"] for job in second.jobs.values()} == {"Succeeded"}


def test_nobody_continues_from_a_model_that_is_not_his(world, first):
    """Neither by our tools, which ask first, nor by a session of his own making, which the launcher refuses."""
    settings = plan_settings(continue_from=first.record.model)
    datasets = tuple(world.datasets)
    with pytest.raises(PermissionDenied) as refused:
        world.stranger.check_plan(first.algorithm, datasets=datasets, compute=world.service, settings=settings)
    assert refused.value.check == "download_allowed"
    parameters = settings.plan(first.algorithm, datasets, earlier=first.record.model_sha256).to_parameters()
    session = world.stranger.market.publish(
        lambda publisher: assets.build_session(
            publisher,
            assets.About("not mine", 1_769_860_800.0),
            datasets=datasets,
            compute=world.service,
            parameters=parameters,
            container=COORDINATOR,
        )
    )
    agreement = world.buy(world.service, buyer=world.stranger)
    answer = world.execute(world.gateway(world.service), agreement, session, account=world.stranger.market.account)
    assert answer.refusal == (403, "download_allowed")
