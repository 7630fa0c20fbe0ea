"""Requests that one check alone refuses, one function each."""

from dataclasses import dataclass, replace

import pytest
from permission_world import BUYER, CLINIC, CLOUD, HOSPITAL, MARGIN, STRANGER, TIMEOUT, Edited

from nevermined_fl import assets, permissions
from nevermined_fl.errors import InvalidRequest, NotFound, PermissionDenied, RequestError
from nevermined_fl.permissions.agreement import AGREEMENT_CHECKS, time_left
from nevermined_fl.permissions.case import Case, run
from nevermined_fl.permissions.workflow import JOB_CHECKS, WORKFLOW_CHECKS

UNKNOWN = "did:nv:" + "9" * 64


@dataclass
class Ask:
    """A request at one provider's gateway."""

    market: object
    agreement_id: str
    asked_did: str
    caller: str = BUYER.address
    provider: tuple = (HOSPITAL.address,)
    metadata: object = None
    chain: object = None

    def ports(self):
        return self.chain or self.market.chain, self.metadata or self.market.metadata

    def execution(self):
        return permissions.check_execution(
            *self.ports(),
            agreement_id=self.agreement_id,
            caller=self.caller,
            workflow_did=self.asked_did,
            provider=self.provider,
            min_blocks_left=MARGIN,
        )

    def refusals(self):
        """Names of all checks that refuse, each asked although others refused before; until facts are missing."""
        case = Case(*self.ports(), self.agreement_id, self.caller, frozenset(self.provider), self.asked_did, MARGIN)
        found = []
        try:
            for check in (*AGREEMENT_CHECKS, *WORKFLOW_CHECKS):
                found += refusals_of(check, case)
            for check in (*JOB_CHECKS[case.kind], time_left):
                found += refusals_of(check, case)
        except AttributeError:
            pass  # a check that refused would have established what this one needs
        return found


def refusals_of(check, case):
    try:
        run((check,), case)
    except RequestError as error:
        return [error.check]
    return []


def participant(market, **changes):
    return Ask(market, market.order(market.dataset), market.workflow, **changes)


def coordinator(market, **changes):
    return Ask(market, market.order(market.compute), market.session, provider=(CLOUD.address,), **changes)


CASES = []


def refuses(kind, check):
    """Note a request that one check alone refuses, with this kind of error."""

    def note(build):
        CASES.append(pytest.param(build, kind, check, id=f"{check}: {build.__name__}"))
        return build

    return note


# --- the agreement -----------------------------------------------------------------------------------------------


@refuses(PermissionDenied, "agreement_exists")
def no_agreement(market):
    return replace(participant(market), agreement_id="0x" + "7" * 64)


@refuses(PermissionDenied, "consumer_is_caller")
def somebody_else_s_agreement(market):
    agreement = market.order(market.dataset, buyer=STRANGER)
    return replace(participant(market), agreement_id=agreement)


@refuses(PermissionDenied, "template_approved")
def a_template_that_is_not_approved(market):
    return participant(market, chain=Seen(market.chain, template_approved=False))


@refuses(PermissionDenied, "template_approved")
def an_approved_template_that_is_not_the_compute_template(market):
    return participant(market, chain=Seen(market.chain, template=market.chain.contract_address("LockPaymentCondition")))


@refuses(PermissionDenied, "did_is_ours")
def a_stranger_s_own_dataset_with_the_victim_as_consumer(market):
    return foreign_dataset(market, market.publish_dataset(STRANGER))


@refuses(PermissionDenied, "did_is_ours")
def a_dataset_of_another_provider(market):
    return foreign_dataset(market, market.other_dataset)


def foreign_dataset(market, did):
    session = market.publish_session(datasets=[did, market.dataset])
    workflow = market.publish_workflow(session=session, datasets=[did, market.dataset])
    agreement = market.order(did, buyer=STRANGER, consumer=BUYER.address)
    return Ask(market, agreement, workflow)


@refuses(PermissionDenied, "did_matches_ddo")
def a_dataset_s_ddo_with_another_price(market):
    return participant(market, metadata=Edited(market.metadata, market.dataset, cheaper))


@refuses(PermissionDenied, "did_matches_ddo")
def another_asset_s_genuine_ddo_in_place_of_the_dataset_s(market):
    other = market.metadata.resolve(market.other_dataset)
    return participant(market, metadata=Edited(market.metadata, market.dataset, lambda _: other))


@refuses(PermissionDenied, "did_matches_ddo")
def a_dataset_registered_with_another_checksum(market):
    return fresh_dataset(market, checksum="0x" + "0c" * 32)


@refuses(InvalidRequest, "did_matches_ddo")
def a_dataset_whose_ddo_is_not_published(market):
    return participant(market, metadata=Edited(market.metadata, market.dataset, lost))


@refuses(InvalidRequest, "did_matches_ddo")
def an_asset_without_a_compute_service(market):
    market.dataset = market.publish(HOSPITAL, market.algorithm_ddo(HOSPITAL))
    agreement = market.chain.create_agreement(
        BUYER, did=market.dataset, amounts=(1,), receivers=(HOSPITAL.address,), timeout=TIMEOUT
    )
    return Ask(market, agreement, market.workflow)


@refuses(PermissionDenied, "conditions_match_ddo")
def an_agreement_below_the_price(market):
    return participant_with(market, amounts=(11, 3))


@refuses(PermissionDenied, "conditions_match_ddo")
def an_agreement_that_pays_the_buyer_himself(market):
    return participant_with(market, receivers=(BUYER.address, CLOUD.address))


@refuses(PermissionDenied, "conditions_match_ddo")
def a_dataset_sold_for_another_token(market):
    return fresh_dataset(market, token=market.chain.contract_address("DIDRegistry"))


@refuses(PermissionDenied, "timelocks_zero")
def a_timelock_on_compute(market):
    return participant_with(market, timelocks=(5, 0, 0))


@refuses(PermissionDenied, "timelocks_zero")
def a_timelock_on_the_lock(market):
    market.chain.mine(1)
    agreement = market.order(market.dataset, timelocks=(0, 2, 0), pay=False)
    market.chain.mine(5)
    market.chain.lock_payment(BUYER, agreement, did=market.dataset, **price(market, market.dataset))
    return Ask(market, agreement, market.workflow)


@refuses(PermissionDenied, "timelocks_zero")
def a_timelock_on_escrow(market):
    return participant_with(market, timelocks=(0, 0, 5))


@refuses(PermissionDenied, "timeouts_supported")
def a_timeout_on_the_lock(market):
    return participant_with(market, timeouts=(TIMEOUT, TIMEOUT, 0))


@refuses(PermissionDenied, "timeouts_supported")
def a_timeout_on_escrow(market):
    return participant_with(market, timeouts=(TIMEOUT, 0, TIMEOUT))


@refuses(PermissionDenied, "timeouts_supported")
def a_timeout_on_escrow_and_none_on_compute(market):
    return participant_with(market, timeouts=(0, 0, TIMEOUT))


@refuses(PermissionDenied, "lock_fulfilled")
def an_unpaid_agreement(market):
    return participant_with(market, pay=False)


@refuses(PermissionDenied, "not_settled")
def an_agreement_whose_compute_condition_is_fulfilled(market):
    ask = participant(market)
    market.chain.fulfill_compute(HOSPITAL, ask.agreement_id, did=market.dataset, consumer=BUYER.address)
    return ask


@refuses(PermissionDenied, "not_settled")
def an_agreement_that_was_aborted_and_refunded(market):
    """In time left, too, nothing is right; here the chain's clock is set back so that one check refuses alone."""
    ask = participant(market)
    before = market.chain.block_number()
    market.chain.mine(TIMEOUT + 1)
    market.chain.abort_by_timeout(BUYER, ask.agreement_id)
    return replace(ask, chain=Seen(market.chain, block=before))


@refuses(PermissionDenied, "time_left")
def one_block_too_few(market):
    ask = participant(market)
    leave(market, ask.agreement_id, blocks_for(market) - 1)
    return ask


@refuses(PermissionDenied, "time_left")
def a_compute_timeout_shorter_than_the_plan(market):
    return participant_with(market, timeout=blocks_for(market) // 2)


@refuses(PermissionDenied, "time_left")
def a_timeout_that_has_passed(market):
    ask = participant(market)
    market.chain.mine(TIMEOUT * 2)
    return ask


# --- the workflow ------------------------------------------------------------------------------------------------


@refuses(InvalidRequest, "workflow_registered")
def an_unknown_workflow(market):
    return replace(participant(market), asked_did=UNKNOWN)


@refuses(PermissionDenied, "workflow_owned_by_caller")
def somebody_else_s_workflow(market):
    return replace(participant(market), asked_did=market.publish_workflow(STRANGER))


@refuses(PermissionDenied, "workflow_owned_by_caller")
def a_workflow_that_the_caller_gave_away(market):
    ask = participant(market)
    market.chain.transfer_ownership(BUYER, market.workflow, STRANGER.address)
    return ask


@refuses(PermissionDenied, "workflow_matches_ddo")
def an_edited_workflow(market):
    return participant(market, metadata=Edited(market.metadata, market.workflow, without_a_stage))


@refuses(PermissionDenied, "workflow_matches_ddo")
def a_workflow_registered_with_another_checksum(market):
    return replace(participant(market), asked_did=market.publish_workflow(checksum="0x" + "0d" * 32))


@refuses(InvalidRequest, "workflow_matches_ddo")
def a_workflow_that_is_not_published(market):
    return participant(market, metadata=Edited(market.metadata, market.workflow, lost))


@refuses(InvalidRequest, "workflow_matches_ddo")
def a_workflow_that_is_no_ddo(market):
    return participant(market, metadata=Edited(market.metadata, market.workflow, lambda _: {"id": market.workflow}))


@refuses(InvalidRequest, "no_data_inputs")
def a_coordinator_with_a_data_input(market):
    ask = coordinator(market)

    def edit(main):
        main["workflow"]["stages"][0]["input"] = [{"index": 0, "id": market.dataset}]

    return resealed(ask, market.session, edit)


@refuses(InvalidRequest, "workflow_kind")
def an_unsupported_main_type(market):
    def edit(main):
        main["type"] = "quantum"

    return resealed(participant(market), market.workflow, edit)


@refuses(InvalidRequest, "workflow_kind")
def an_algorithm_in_place_of_a_workflow(market):
    return replace(participant(market), asked_did=market.algorithm)


@refuses(InvalidRequest, "workflow_kind")
def a_coordinator_of_the_wrong_shape(market):
    def edit(main):
        main["session"]["datasets"] = "all"

    return resealed(coordinator(market), market.session, edit)


# --- a participant's job -----------------------------------------------------------------------------------------


@refuses(PermissionDenied, "workflow_contains_dataset")
def a_workflow_over_another_dataset(market):
    return replace(participant(market), asked_did=market.publish_workflow(datasets=[market.other_dataset]))


@refuses(PermissionDenied, "workflow_contains_dataset")
def a_workflow_over_a_compute_service(market):
    session = market.publish_session(datasets=[market.compute, market.dataset])
    workflow = market.publish_workflow(session=session, datasets=[market.compute, market.dataset])
    return replace(coordinator(market), asked_did=workflow)


@refuses(InvalidRequest, "workflow_contains_dataset")
def a_workflow_with_the_dataset_in_two_stages(market):
    workflow = market.publish_workflow(datasets=[market.dataset, market.dataset])
    return replace(participant(market), asked_did=workflow)


@refuses(InvalidRequest, "session_registered")
def an_unknown_session(market):
    return replace(participant(market), asked_did=market.publish_workflow(session=UNKNOWN))


@refuses(PermissionDenied, "session_owned_by_caller")
def somebody_else_s_session(market):
    return in_session(market, market.publish_session(STRANGER))


@refuses(PermissionDenied, "session_matches_ddo")
def an_edited_session(market):
    return participant(market, metadata=Edited(market.metadata, market.session, without_a_member))


@refuses(InvalidRequest, "session_matches_ddo")
def a_session_that_is_not_published(market):
    return participant(market, metadata=Edited(market.metadata, market.session, lost))


@refuses(InvalidRequest, "session_valid")
def a_session_that_is_a_dataset(market):
    return in_session(market, market.publish_dataset(BUYER))


@refuses(InvalidRequest, "session_valid")
def a_plan_with_more_participants_than_datasets(market):
    return in_session(market, market.publish_session(minParticipants=3))


@refuses(PermissionDenied, "session_lists_dataset")
def a_session_without_the_dataset(market):
    third = market.publish_dataset(CLINIC)
    return in_session(market, market.publish_session(datasets=[market.other_dataset, third]))


# --- a coordinator's job -----------------------------------------------------------------------------------------


@refuses(InvalidRequest, "session_valid")
def a_coordinator_s_plan_with_no_rounds(market):
    return replace(coordinator(market), asked_did=market.publish_session(rounds=0))


@refuses(PermissionDenied, "session_names_compute")
def a_session_for_another_compute_service(market):
    return replace(coordinator(market), asked_did=market.publish_session(compute=market.publish_compute()))


@refuses(PermissionDenied, "session_names_compute")
def a_coordinator_under_the_agreement_of_a_dataset(market):
    dataset = market.publish_dataset(HOSPITAL, inbound=True)
    return Ask(market, market.order(dataset), market.publish_session(compute=dataset))


@refuses(PermissionDenied, "inbound_offered")
def a_compute_service_that_accepts_no_connections(market):
    compute = market.publish_compute(inbound=False)
    session = market.publish_session(compute=compute)
    return Ask(market, market.order(compute), session, provider=(CLOUD.address,))


# --- what the requests above are made of ---------------------------------------------------------------------------


class Seen:
    """The chain, with agreements seen as of other values, or at another block."""

    def __init__(self, chain, *, block=None, **changes):
        self._chain, self._block, self._changes = chain, block, changes

    def __getattr__(self, name):
        return getattr(self._chain, name)

    def agreement(self, agreement_id):
        return replace(self._chain.agreement(agreement_id), **self._changes)

    def block_number(self):
        return self._chain.block_number() if self._block is None else self._block


def resealed(ask, did, edit):
    changed, metadata = ask.market.resealed(BUYER, did, edit)
    return replace(ask, asked_did=changed, metadata=metadata)


def price(market, did):
    terms = assets.compute_terms(market.metadata.resolve(did))
    return {"amounts": terms.amounts, "receivers": terms.receivers}


def participant_with(market, **order):
    return Ask(market, market.order(market.dataset, **order), market.workflow)


def fresh_dataset(market, **changes):
    """A participant with a dataset of its own, so that its publishing can be wrong."""
    did = market.publish_dataset(HOSPITAL, **changes)
    session = market.publish_session(datasets=[did, market.other_dataset])
    return Ask(market, market.order(did), market.publish_workflow(session=session, datasets=[did]))


def in_session(market, session):
    return replace(participant(market), asked_did=market.publish_workflow(session=session))


def blocks_for(market):
    return permissions.blocks_needed(plan_of(market), block_seconds=market.chain.block_seconds(), margin=MARGIN)


def plan_of(market):
    return coordinator(market).execution().plan


def leave(market, agreement, blocks):
    """Mine until so many blocks are left on an agreement."""
    left = market.chain.agreement(agreement).compute.expires() - market.chain.block_number()
    market.chain.mine(left - blocks)


def cheaper(ddo):
    ddo["service"][1]["attributes"]["main"]["price"] = "1"
    return ddo


def without_a_stage(ddo):
    ddo["service"][0]["attributes"]["main"]["workflow"]["stages"].pop()
    return ddo


def without_a_member(ddo):
    ddo["service"][0]["attributes"]["main"]["session"]["datasets"].pop()
    return ddo


def lost(ddo):
    raise NotFound(f"no {ddo['id']}")
