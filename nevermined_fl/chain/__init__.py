"""Chains: adapters of ``ports.Chain``.

Here belongs what speaks to the Nevermined contracts, real (``nevermined``) or played (``memory``). Not here: tokens signed
off chain, DDOs, and what a purchase means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nevermined_fl.ports import Chain
    from nevermined_fl.settings import Network

__all__ = ["connect"]


def connect(network: Network, *, patience: float = 30.0, proxy: str = "") -> Chain:
    """The chain of a network; nothing is asked of it yet.

    Args:
        network: as :func:`nevermined_fl.settings.load_network` reads it.
        patience: seconds for which an answer that does not come is asked for again.
        proxy: HTTP proxy on the way to the node, ``http://host:port``.
    """
    from nevermined_fl.chain.nevermined import NeverminedChain  # noqa: PLC0415  web3 takes 3 s to import

    return NeverminedChain(network, patience=patience, proxy=proxy)
