"""Settlement: collect what was earned, and say on chain what was used and made. Idempotent: the chain is asked first.

Who is paid is decided by callers, by one rule: the signed ``finished`` record of the session lists the agreement.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nevermined_fl.errors import ChainError
from nevermined_fl.ports import ConditionState

if TYPE_CHECKING:
    from nevermined_fl.launcher.order import Order
    from nevermined_fl.ports import Account, Agreement, Chain
    from nevermined_fl.tokens import SessionRecord

__all__ = ["activity_of", "is_contributor", "record_provenance", "settle"]

logger = logging.getLogger(__name__)


def is_contributor(order: Order, record: SessionRecord) -> bool:
    """Whether the session's last word says that this agreement's work is in the model."""
    listed = {(each.did, each.agreement) for each in record.contributors}
    return record.outcome == "finished" and bool(record.model) and (order.did, order.agreement) in listed


def settle(chain: Chain, account: Account, order: Order) -> str:
    """Fulfil the compute condition and release the escrow; the agreement's state afterwards (``paid``, ``refunded`` …).

    Raises:
        ChainError: the node did not answer, or a contract refused.
    """
    agreement = _agreement(chain, order)
    if agreement.state() in {"paid", "refunded", "unpaid"}:
        return agreement.state()
    if agreement.compute.state == ConditionState.UNFULFILLED:
        chain.fulfill_compute(account, order.agreement, did=order.did, consumer=order.consumer)
    # Also after an abort: then this is what refunds the buyer, and the work was too late to be paid.
    chain.release(
        account,
        order.agreement,
        did=order.did,
        amounts=order.amounts,
        receivers=order.receivers,
        consumer=order.consumer,
    )
    state = _agreement(chain, order).state()
    logger.info("agreement %s is %s", order.agreement, state)
    return state


def activity_of(session: str) -> str:
    """The provenance activity of a session: its DID's digits, 0x<64 hex>."""
    return "0x" + session.removeprefix("did:nv:")


def record_provenance(chain: Chain, account: Account, order: Order, model: str) -> None:
    """The session used our dataset and the model derives from it; only the dataset's owner or provider may say so."""
    activity = activity_of(order.session)
    # Both are no error when they are on chain already.
    chain.used(account, did=order.did, activity=activity)
    chain.was_derived_from(account, new=model, source=order.did, activity=activity)


def _agreement(chain: Chain, order: Order) -> Agreement:
    found = chain.agreement(order.agreement)
    if found is None:
        raise ChainError(f"agreement {order.agreement} is not on chain any more", reverted=True)
    return found
