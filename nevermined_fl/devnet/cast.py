"""Who plays in the demo: what its providers publish and decide, each from its own folder with its own key?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl.devnet.demo_data import write_csv
from nevermined_fl.marketplace.provider import Provider

if TYPE_CHECKING:
    from nevermined_fl.devnet.demo_data import Split, Table
    from nevermined_fl.devnet.home import State

__all__ = ["Cast", "Seller"]

TOKEN = 10**18
_COORDINATOR_PRICE = 5
_FIRST_PRICE, _PRICE_STEP = 10, 3


@dataclass(frozen=True, slots=True)
class Seller:
    """A data provider and the dataset that it published."""

    name: str
    provider: Provider
    did: str
    file: Path
    rows: int


@dataclass(frozen=True, slots=True)
class Cast:
    """The compute provider with its service, and the data providers."""

    compute: Provider
    compute_did: str
    sellers: tuple[Seller, ...]

    @classmethod
    def publish(cls, state: State, table: Table, split: Split) -> Cast:
        """Let every provider publish what it has; prices differ, so that no sum comes out right by accident."""
        compute = Provider(next(entry.home for entry in state.providers if entry.kind == "compute"))
        compute_did = compute.publish_compute(
            price=_COORDINATOR_PRICE * TOKEN, name="coordinators on demand", description="accepts inbound connections"
        )
        sellers = []
        homes = [entry for entry in state.providers if entry.kind == "data"]
        for number, (entry, rows) in enumerate(zip(homes, split.parts, strict=True)):
            provider = Provider(entry.home)
            file = write_csv(Path(entry.home) / "data" / f"{table.name}.csv", table.columns, rows)
            did = provider.publish_dataset(
                file,
                price=(_FIRST_PRICE + _PRICE_STEP * number) * TOKEN,
                name=f"{table.name} of {entry.name}",
                description=table.title,
                tags=(table.name, "federated-learning"),
            )
            sellers.append(Seller(entry.name, provider, did, file, len(rows)))
        return cls(compute, compute_did, tuple(sellers))

    def approve(self, digest: str) -> None:
        """Every data provider reads the algorithm that it was asked about, and allows it."""
        for seller in self.sellers:
            seller.provider.source(digest)
            seller.provider.approve(digest)

    def names(self) -> dict[str, str]:
        """Name of who sells it, by DID."""
        return {self.compute_did: "coordinator"} | {seller.did: seller.name for seller in self.sellers}
