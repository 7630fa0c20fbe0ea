"""Agreement: was this bought, by the caller, from us, at the DDO's price, and can we still be paid?

The buyer chooses timelocks and timeouts freely: they are arguments of createAgreement and no part of the condition ids.
Hence the three checks about time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import PermissionDenied
from nevermined_fl.keys import checksum_address
from nevermined_fl.permissions.case import genuine_ddo, registered
from nevermined_fl.ports import ConditionState

if TYPE_CHECKING:
    from nevermined_fl.permissions.case import Case
    from nevermined_fl.session.plan import Plan

__all__ = ["AGREEMENT_CHECKS", "PARTY_CHECKS", "TEMPLATE", "blocks_needed", "time_left"]

TEMPLATE = "EscrowComputeExecutionTemplate"


def blocks_needed(plan: Plan, *, block_seconds: float, margin: int) -> int:
    """Blocks that must be left on an agreement before a session of this plan starts."""
    return math.ceil(plan.max_duration() / block_seconds) + margin


def agreement_exists(case: Case) -> None:
    """The agreement is on chain."""
    found = case.chain.agreement(case.agreement_id)
    if found is None:
        raise PermissionDenied(f"no agreement {case.agreement_id} on chain", hint="order the asset first")
    case.agreement = found


def consumer_is_caller(case: Case) -> None:
    """Only the buyer himself runs what he bought."""
    if case.agreement.consumer != case.caller:
        raise PermissionDenied(
            f"the agreement's consumer is {case.agreement.consumer}, not {case.caller}", hint="use the key that ordered"
        )


def template_approved(case: Case) -> None:
    """The agreement was made by the compute template, and that is approved: another one may promise no payment."""
    expected, found = case.chain.contract_address(TEMPLATE), case.agreement
    if found.template != expected or not found.template_approved:
        state = "approved" if found.template_approved else "not approved"
        raise PermissionDenied(
            f"the agreement's template is {found.template} ({state}), expected {TEMPLATE} at {expected}"
        )


def did_is_ours(case: Case) -> None:
    """The agreement is about an asset of this provider. Anybody can sell his own asset to anybody, even to himself."""
    case.registration = registered(case, case.agreement.did)
    if case.provider.isdisjoint((case.registration.owner, *case.registration.providers)):
        raise PermissionDenied(
            f"{case.agreement.did} belongs to {case.registration.owner}, not to this provider",
            hint="ask the gateway that the asset's DDO names",
        )


def did_matches_ddo(case: Case) -> None:
    """The asset's DDO is the one that was registered, states a compute service's terms, and a machine's are our own."""
    ddo = genuine_ddo(case, case.registration)
    case.asset_kind, case.terms = assets.kind(ddo), assets.compute_terms(ddo)
    # The registry lets anybody make us provider or owner of his DID. Of a dataset that changes nothing, for the launcher
    # must have it; a machine it always has, and the stranger's DDO would set its price.
    maker = checksum_address(assets.creator(ddo))
    if case.asset_kind == "compute" and maker not in case.provider:
        raise PermissionDenied(
            f"the compute service {case.agreement.did} was made by {maker}, not by this provider",
            hint="buy a service that this provider offers",
        )


def conditions_match_ddo(case: Case) -> None:
    """The agreement's conditions are those of the DDO's terms: asset, buyer, amounts, receivers and token."""
    token = case.chain.contract_address("NeverminedToken")
    if checksum_address(case.terms.token) != token:
        raise PermissionDenied(f"the DDO asks for tokens of {case.terms.token}; escrow here holds those of {token}")
    found = case.agreement
    expected = case.chain.expected_conditions(
        case.agreement_id,
        did=found.did,
        consumer=found.consumer,
        amounts=case.terms.amounts,
        # A stranger's DDO may write addresses in lower case.
        receivers=[checksum_address(receiver) for receiver in case.terms.receivers],
    )
    for name, wanted, got in zip(
        ("compute", "lock", "escrow"), expected, (found.compute.id, found.lock.id, found.escrow.id), strict=True
    ):
        if wanted != got:
            raise PermissionDenied(
                f"the agreement's {name} condition is {got}; the DDO's terms make {wanted}",
                hint=f"order at the DDO's price, {case.terms.price()}, to its receivers",
            )


def timelocks_zero(case: Case) -> None:
    """No timelock: it would keep the provider from fulfilling or being paid until the timeout refunds the buyer."""
    found = case.agreement
    timelocks = (found.compute.timelock, found.lock.timelock, found.escrow.timelock)
    if any(timelocks):
        raise PermissionDenied(f"expected timelocks (0, 0, 0), got {timelocks}", hint="order again without timelocks")


def timeouts_supported(case: Case) -> None:
    """Only the compute condition may time out: an escrow that is aborted keeps the tokens for ever."""
    found = case.agreement
    timeouts = (found.lock.timeout, found.escrow.timeout)
    if any(timeouts):
        raise PermissionDenied(
            f"expected timeouts of lock and escrow (0, 0), got {timeouts}",
            hint="order again with a compute timeout alone",
        )


def lock_fulfilled(case: Case) -> None:
    """The price is in escrow."""
    state = case.agreement.lock.state
    if state != ConditionState.FULFILLED:
        raise PermissionDenied(
            f"the payment is not locked in escrow: the lock is {state.name}", hint="pay for the agreement"
        )


def not_settled(case: Case) -> None:
    """Nothing was fulfilled, aborted, paid or refunded yet: one payment is for one run that ended well."""
    found = case.agreement
    for name, condition in (("compute", found.compute), ("escrow", found.escrow)):
        if condition.state != ConditionState.UNFULFILLED:
            raise PermissionDenied(
                f"the agreement is settled: {name} is {condition.state.name} ({found.state()})", hint="order again"
            )


def time_left(case: Case) -> None:
    """Blocks enough for the plan at its slowest; after the timeout a fulfilment turns into a refund."""
    expires = case.agreement.compute.expires()
    if expires is None:
        case.blocks_left = None
        return
    left = expires - case.chain.block_number()
    needed = blocks_needed(case.plan, block_seconds=case.chain.block_seconds(), margin=case.min_blocks_left)
    if left < needed:
        raise PermissionDenied(
            f"{max(left, 0)} blocks are left on the agreement; the plan may take {needed}",
            hint=f"order with a timeout well over {needed} blocks, or plan shorter timeouts",
        )
    case.blocks_left = left


PARTY_CHECKS = (agreement_exists, consumer_is_caller, did_is_ours)
AGREEMENT_CHECKS = (
    agreement_exists,
    consumer_is_caller,
    template_approved,
    did_is_ours,
    did_matches_ddo,
    conditions_match_ddo,
    timelocks_zero,
    timeouts_supported,
    lock_fulfilled,
    not_settled,
)
