"""Executions: what the checks let through, and what each of them alone refuses."""

import pytest
from permission_cases import CASES, Ask, blocks_for, coordinator, leave, participant, participant_with, plan_of, price
from permission_world import BUYER, CLINIC, HOSPITAL, LONGEST, open_market

from nevermined_fl import permissions
from nevermined_fl.errors import PermissionDenied, RequestError
from nevermined_fl.permissions.agreement import AGREEMENT_CHECKS
from nevermined_fl.permissions.download import DOWNLOAD_CHECKS
from nevermined_fl.permissions.workflow import JOB_CHECKS, WORKFLOW_CHECKS


@pytest.fixture
def market():
    return open_market()


@pytest.mark.parametrize(("build", "kind", "check"), CASES)
def test_a_request_is_refused_by_the_one_check_that_it_fails(build, kind, check, market):
    ask = build(market)
    with pytest.raises(RequestError) as refused:
        ask.execution()
    assert (type(refused.value), refused.value.check) == (kind, check)
    assert len(refused.value.message) > 20
    assert len(refused.value.hint) > 10
    # A data input also spoils the coordinator's shape: the check that gives the mistake its name comes first.
    assert ask.refusals() == ([check, "workflow_kind"] if check == "no_data_inputs" else [check])


def test_a_participant_is_granted_with_all_that_the_checks_proved(market):
    ask = participant(market)
    grant = ask.execution()
    assert ask.refusals() == []
    assert (grant.kind, grant.did, grant.agreement.id) == ("participant", market.dataset, ask.agreement_id)
    assert (grant.session_did, grant.workflow_did) == (market.session, market.workflow)
    assert grant.workflow == market.metadata.resolve(market.workflow)
    assert grant.session.datasets == (market.dataset, market.other_dataset)
    assert grant.terms.price() == 15
    assert grant.plan.max_duration() == LONGEST
    assert grant.blocks_left == grant.agreement.compute.expires() - market.chain.block_number()


def test_a_coordinator_s_workflow_is_its_session(market):
    grant = coordinator(market).execution()
    assert (grant.kind, grant.did) == ("coordinator", market.compute)
    assert grant.session_did == grant.workflow_did == market.session
    assert grant.session.compute == market.compute


def test_just_enough_blocks_are_enough(market):
    ask = participant(market)
    leave(market, ask.agreement_id, blocks_for(market))
    assert ask.execution().blocks_left == blocks_for(market)


@pytest.mark.parametrize(("seconds", "blocks"), [(1.0, 282), (2.0, 147), (100.0, 15)])
def test_the_blocks_needed_follow_the_block_time_and_the_margin(market, seconds, blocks):
    assert permissions.blocks_needed(plan_of(market), block_seconds=seconds, margin=12) == blocks


def test_an_agreement_without_a_timeout_is_allowed_however_old(market):
    ask = participant_with(market, timeout=0)
    market.chain.mine(5000)
    assert ask.execution().blocks_left is None


def test_a_listed_provider_of_the_dataset_may_run_it(market):
    did = market.publish_dataset(CLINIC, providers=[HOSPITAL.address])
    session = market.publish_session(datasets=[did, market.dataset])
    workflow = market.publish_workflow(session=session, datasets=[did])
    assert Ask(market, market.order(did), workflow).execution().did == did


def test_wasted_purchases_do_not_count_for_later_ones(market):
    """``wasComputeTriggered(did, consumer)`` is true after the first; the second, unpaid, must be refused all the same."""
    first = market.order(market.dataset)
    market.chain.fulfill_compute(HOSPITAL, first, did=market.dataset, consumer=BUYER.address)
    market.chain.release(HOSPITAL, first, did=market.dataset, consumer=BUYER.address, **price(market, market.dataset))
    with pytest.raises(PermissionDenied) as refused:
        participant_with(market, pay=False).execution()
    assert refused.value.check == "lock_fulfilled"


def test_no_check_is_dead():
    refused_here = {case.values[2] for case in CASES}
    assert refused_here == set(permissions.CHECKS) - {check.__name__ for check in DOWNLOAD_CHECKS}


def test_every_check_says_what_it_is_for():
    for check in (*AGREEMENT_CHECKS, *WORKFLOW_CHECKS, *JOB_CHECKS["participant"], *JOB_CHECKS["coordinator"]):
        assert len(check.__doc__) > 20, check.__name__
