"""How are a session's compute services bought, without paying twice or leaving half an order?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import ChainError, InvalidRequest, NotFound, SettingsError
from nevermined_fl.marketplace.quote import Position, Quote, timeout_blocks, tokens
from nevermined_fl.ports import ConditionState
from nevermined_fl.session.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.assets import Terms
    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.ports import Agreement

__all__ = ["held", "order", "plan_of", "quote", "refund"]

logger = logging.getLogger(__name__)

_SUPPORTED = (0, 0, 0)


def plan_of(market: Market, session: str) -> tuple[Plan, str]:
    """The plan of a published session, and the compute DID that runs its coordinator."""
    spec = assets.session_spec(market.metadata.resolve(session))
    return Plan.from_parameters(spec.parameters, spec.datasets), spec.compute


def quote(market: Market, plan: Plan, *, datasets: Sequence[str], compute: str) -> Quote:
    """What compute on these datasets and the coordinator cost, and whether the balance suffices.

    Raises:
        InvalidRequest: something else than a dataset is among them, the compute service accepts no inbound connections, or sellers want different tokens.
    """
    positions, terms = [], []
    for role, did in (*(("participant", did) for did in datasets), ("coordinator", compute)):
        ddo = market.metadata.resolve(did)
        if role == "participant" and (found := assets.kind(ddo)) != "dataset":
            raise InvalidRequest(f"{did} is a {found}, not a dataset", check="main_type")
        terms.append(assets.compute_terms(ddo))
        name = assets.summary(ddo).name
        positions.append(Position(role, did, name, terms[-1].price(), terms[-1].timeout_blocks, terms[-1].inbound))
    if not terms[-1].inbound:
        raise InvalidRequest(f"{compute} accepts no inbound connections, so no coordinator can run there")
    token = market.chain.contract_address("NeverminedToken")
    for position, term in zip(positions, terms, strict=True):
        if term.token != token:
            raise InvalidRequest(f"{position.did} asks for tokens of {term.token}; this network's are those of {token}")
    seconds = market.chain.block_seconds()
    return Quote(
        positions=tuple(positions),
        token=token,
        decimals=market.chain.token_decimals(),
        balance=market.chain.balance(market.account.address),
        timeout=max(timeout_blocks(plan, block_seconds=seconds, terms=term) for term in terms),
        block_seconds=seconds,
        max_duration=plan.max_duration(),
    )


def order(market: Market, did: str, plan: Plan, *, again: bool = False) -> str:
    """Buy compute on a dataset, or a coordinator's compute service: agreement and payment in escrow; the agreement's id.

    Nothing is bought twice by mistake: an agreement of the same terms that broke off before its payment is paid, and one
    that is paid and was never started is taken as it is, unless ``again`` asks for another.

    Raises:
        SettingsError: the balance does not suffice; nothing was sent.
        ChainError: a transaction failed; the message names the agreement if there is one already.
    """
    terms = assets.compute_terms(market.metadata.resolve(did))
    found = held(market, did, plan, again=again)
    if found is not None and found.state() == "locked":
        logger.info("agreement %s for %s is paid and was never started: taking it", found.id, did)
        return found.id
    balance = market.chain.balance(market.account.address)
    if balance < terms.price():
        price, has = (tokens(amount, market.chain.token_decimals()) for amount in (terms.price(), balance))
        raise SettingsError(
            f"{did} costs {price} tokens and {market.account.address} has {has}; nothing was sent",
            hint="`nevermined-fl quote` says what a session costs",
        )
    if found is not None:
        logger.info("agreement %s was created before and is not paid: paying it", found.id)
    agreement = found.id if found is not None else _create(market, did, plan, terms)
    try:
        market.chain.lock_payment(market.account, agreement, did=did, amounts=terms.amounts, receivers=terms.receivers)
    except ChainError as error:
        message = f"agreement {agreement} is made but not paid: {error.message}"
        raise ChainError(message, reverted=error.reverted, hint="order again: it will be paid then") from error
    return agreement


def held(market: Market, did: str, plan: Plan, *, again: bool = False) -> Agreement | None:
    """The newest agreement of the DDO's terms, with blocks enough, that is unpaid, or paid (not for ``again``) and was never started."""
    terms = assets.compute_terms(market.metadata.resolve(did))
    timeout = timeout_blocks(plan, block_seconds=market.chain.block_seconds(), terms=terms)
    states = ("unpaid",) if again else ("unpaid", "locked")
    for agreement_id in reversed(market.chain.agreements_of(market.account.address)):
        found = market.chain.agreement(agreement_id)
        if found is None or found.did != did or found.state() not in states:
            continue
        if _fits(market, found, terms, timeout) and not _was_started(market, found):
            return found
    return None


def _create(market: Market, did: str, plan: Plan, terms: Terms) -> str:
    timeout = timeout_blocks(plan, block_seconds=market.chain.block_seconds(), terms=terms)
    return market.chain.create_agreement(
        market.account, did=did, amounts=terms.amounts, receivers=terms.receivers, timeout=timeout
    )


def _was_started(market: Market, found: Agreement) -> bool:
    """Only its seller knows; nobody starts what is not paid."""
    return found.state() == "locked" and bool(market.gateway_of(found.did).compute("list", found.id, ""))


def _fits(market: Market, found: Agreement, terms: Terms, timeout: int) -> bool:
    expires = found.compute.expires()
    conditions = (found.compute, found.lock, found.escrow)
    return (
        expires is not None
        # Nine tenths, because some of its blocks have passed since the same order created it.
        and expires - market.chain.block_number() >= timeout * 9 // 10
        and tuple(condition.timelock for condition in conditions) == _SUPPORTED
        and found.lock.timeout == found.escrow.timeout == 0
        and tuple(condition.id for condition in conditions)
        == market.chain.expected_conditions(
            found.id, did=found.did, consumer=found.consumer, amounts=terms.amounts, receivers=terms.receivers
        )
    )


def refund(market: Market, agreement_id: str) -> str:
    """Abort a timed-out agreement and release the escrow back to the buyer; the agreement's state afterwards.

    Raises:
        SettingsError: there is nothing to refund, or there never can be.
        ChainError: it has not timed out yet.
    """
    found = market.chain.agreement(agreement_id)
    if found is None:
        raise NotFound(f"no agreement {agreement_id} on chain", check="agreement_exists")
    if found.state() not in {"locked", "aborted"}:
        raise SettingsError(f"agreement {agreement_id} is {found.state()}: there is nothing to refund")
    if found.compute.state == ConditionState.UNFULFILLED:
        _abort(market, found)
    terms = assets.compute_terms(market.metadata.resolve(found.did))
    market.chain.release(
        market.account,
        agreement_id,
        did=found.did,
        amounts=terms.amounts,
        receivers=terms.receivers,
        consumer=found.consumer,
    )
    after = market.chain.agreement(agreement_id)
    return after.state() if after else "unknown"


def _abort(market: Market, found: Agreement) -> None:
    expires = found.compute.expires()
    if expires is None:
        raise SettingsError(
            f"agreement {found.id} was made without a timeout, so no refund exists for it",
            hint="it stays re-runnable until its provider has been paid: nevermined-fl start",
        )
    left = expires - market.chain.block_number()
    if left >= 0:
        minutes = left * market.chain.block_seconds() / 60
        raise SettingsError(
            f"agreement {found.id} times out after block {expires}, {left} blocks from now",
            hint=f"ask again in about {minutes:.0f} minutes",
        )
    market.chain.abort_by_timeout(market.account, found.id)
