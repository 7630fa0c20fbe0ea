"""Nevermined: the chain with the real contracts, over a node's JSON-RPC."""

from __future__ import annotations

from functools import cached_property

from nevermined_fl.chain.agreements import Agreements
from nevermined_fl.chain.identifiers import checked_address
from nevermined_fl.chain.registry import Registry

__all__ = ["NeverminedChain"]

_RECENT = 50


class NeverminedChain(Registry, Agreements):
    """``ports.Chain`` over the contracts of a network. Safe for several threads."""

    def block_number(self) -> int:
        """The newest block."""
        return self.node.ask("block number", lambda: int(self.node.web3.eth.block_number))

    def block_seconds(self) -> float:
        """Seconds between blocks, measured over recent blocks; at least 0.1."""
        newest = self.block_number()
        oldest = max(newest - _RECENT, 0)
        if newest == oldest:
            return 1.0
        return max((self._timestamp(newest) - self._timestamp(oldest)) / (newest - oldest), 0.1)

    def balance(self, address: str) -> int:
        """Tokens of an address, in the smallest unit."""
        return int(self.read("NeverminedToken", "balanceOf", checked_address(address)))

    def token_decimals(self) -> int:
        """Decimals of the token."""
        return self._decimals

    @cached_property
    def _decimals(self) -> int:
        return int(self.read("NeverminedToken", "decimals"))

    def _timestamp(self, number: int) -> int:
        block = self.node.ask("block", lambda: self.node.web3.eth.get_block(number))
        return int(block["timestamp"])
