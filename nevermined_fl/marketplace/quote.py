"""What will a session cost, how long may it take, and does the money suffice?

Timeouts are blocks counted from the creation of an agreement, not seconds and not from the start of the job: that is
how the contracts count, and why a quote shows both.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nevermined_fl.assets import Terms
    from nevermined_fl.session.plan import Plan

__all__ = ["Position", "Quote", "timeout_blocks", "tokens"]

_MARGIN_SECONDS = 120.0
_MARGIN_FACTOR = 1.5
_MARGIN_BLOCKS = 20
# Measured on the 1.3.12 contracts: createAgreement 1.05M, approve and lock 0.25M.
_GAS_PER_ORDER = 1_300_000


@dataclass(frozen=True, slots=True)
class Position:
    """One purchase: ``role`` is ``participant`` or ``coordinator``; ``asked_blocks`` the timeout that the seller asks for."""

    role: str
    did: str
    name: str
    price: int
    asked_blocks: int
    inbound: bool = False


@dataclass(frozen=True, slots=True)
class Quote:
    """All purchases of a session. Prices and ``balance`` are in the token's smallest unit.

    ``timeout`` is the compute condition's, in blocks from the creation of each agreement; after it, ``refund`` gives
    the money of an agreement back that no provider has fulfilled.
    """

    positions: tuple[Position, ...]
    token: str
    decimals: int
    balance: int
    timeout: int
    block_seconds: float
    max_duration: float

    def total(self) -> int:
        """What leaves the buyer's balance."""
        return sum(position.price for position in self.positions)

    def missing(self) -> int:
        """Tokens that the buyer lacks; 0 when the balance suffices."""
        return max(0, self.total() - self.balance)

    def gas(self) -> int:
        """About how much gas all orders take."""
        return _GAS_PER_ORDER * len(self.positions)

    def meaning(self) -> str:
        """The timeout in a sentence."""
        minutes = self.timeout * self.block_seconds / 60
        return (
            f"Each agreement times out {self.timeout} blocks after its creation (about {minutes:.0f} minutes at "
            f"{self.block_seconds:.1f} s a block; the plan takes at most {self.max_duration / 60:.0f}). A provider that "
            "has not fulfilled it by then cannot be paid any more, and you get the money back with: nevermined-fl refund."
        )

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        derived = {"total": self.total(), "missing": self.missing(), "gas": self.gas(), "meaning": self.meaning()}
        return asdict(self) | derived


def tokens(amount: int, decimals: int) -> str:
    """An amount in the token's smallest unit as people write it."""
    whole, rest = divmod(amount, 10**decimals)
    fraction = f"{rest:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def timeout_blocks(plan: Plan, *, block_seconds: float, terms: Terms) -> int:
    """The compute timeout to order with, in blocks: the plan's maximum duration, starting late and finishing calmly.

    At least what the seller asks for. Blocks are counted from createAgreement, so waiting for other purchases, reviews
    and starts eats from it too; half of the duration again and two minutes are left for that.
    """
    seconds = plan.max_duration() * _MARGIN_FACTOR + _MARGIN_SECONDS
    return max(terms.timeout_blocks, math.ceil(seconds / block_seconds) + _MARGIN_BLOCKS)
