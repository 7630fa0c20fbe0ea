"""Who plays in the demo: what its providers publish and decide, each from its own folder with its own key?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl.devnet.demo_data import write_csv
from nevermined_fl.marketplace.provider import Provider

if TYPE_CHECKING:
    from nevermined_fl.devnet.demo_data import Floats, Split, Table
    from nevermined_fl.devnet.home import State

__all__ = ["Cast", "Seller"]

TOKEN = 10**18
_COORDINATOR_PRICE = 5
_FIRST_PRICE, _PRICE_STEP = 10, 3
_INBOUND = "accepts inbound connections"


@dataclass(frozen=True, slots=True)
class Seller:
    """A data provider and the dataset that it published."""

    name: str
    provider: Provider
    did: str
    file: Path


@dataclass(frozen=True, slots=True)
class Cast:
    """The compute provider with its service, and the data providers."""

    compute: Provider
    compute_did: str
    sellers: tuple[Seller, ...]

    @classmethod
    def publish(cls, state: State, table: Table, split: Split) -> Cast:
        """Let every provider publish what it has; prices differ, so that no sum comes out right by accident."""
        homes = [Path(entry.home) for entry in state.providers if entry.kind == "data"]
        with ThreadPoolExecutor(len(state.providers)) as pool:
            compute = pool.submit(_publish_compute, Path(next(e.home for e in state.providers if e.kind == "compute")))
            sales = [
                pool.submit(_publish_dataset, *sale, table)
                for sale in zip(range(len(homes)), homes, split.parts, strict=True)
            ]
        return cls(*compute.result(), tuple(sale.result() for sale in sales))

    def approve(self, digest: str) -> None:
        """Every data provider reads the algorithm that it was asked about, and allows it."""
        for seller in self.sellers:
            seller.provider.source(digest)
            seller.provider.approve(digest)

    def names(self) -> dict[str, str]:
        """Name of who sells it, by DID."""
        return {self.compute_did: "coordinator"} | {seller.did: seller.name for seller in self.sellers}


def _publish_compute(home: Path) -> tuple[Provider, str]:
    provider = Provider(home)
    price = _COORDINATOR_PRICE * TOKEN
    return provider, provider.publish_compute(price=price, name="coordinators on demand", description=_INBOUND)


def _publish_dataset(number: int, home: Path, rows: Floats, table: Table) -> Seller:
    provider = Provider(home)
    file = write_csv(home / "data" / f"{table.name}.csv", table.columns, rows)
    did = provider.publish_dataset(
        file,
        price=(_FIRST_PRICE + _PRICE_STEP * number) * TOKEN,
        name=f"{table.name} of {home.name}",
        description=table.title,
        tags=(table.name, "federated-learning"),
    )
    return Seller(home.name, provider, did, file)
