"""Order: what one job is to do, fixed when it is accepted, so that a restart asks nobody again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from nevermined_fl.session.plan import Plan

__all__ = ["Order", "RemoteFile"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of an asset at somebody's gateway. ``digest`` is ``sha256:<hex>``, ``size`` bytes."""

    did: str
    index: int
    gateway: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Order:
    """One agreement's run of one workflow.

    ``did`` is what was bought: a dataset (participant) or a compute service (coordinator). ``file`` is the Trainer's
    (participant) or the initial model (coordinator; None when a participant makes it). ``examples`` are the dataset's
    rows.
    """

    kind: str
    agreement: str
    did: str
    session: str
    compute: str
    workflow: str
    consumer: str
    members: tuple[str, ...]
    parameters: dict[str, object]
    amounts: tuple[int, ...]
    receivers: tuple[str, ...]
    file: RemoteFile | None
    examples: int = 0

    def plan(self) -> Plan:
        """The session's plan."""
        return Plan.from_parameters(self.parameters, self.members)

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self) | {"amounts": [str(amount) for amount in self.amounts]})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Law: ``Order.from_json(order.to_json()) == order``."""
        body = json.loads(text)
        tuples = {name: tuple(body[name]) for name in ("members", "receivers")}
        # Prices are uint256; JSON numbers are not.
        amounts = tuple(int(amount) for amount in body["amounts"])
        file = RemoteFile(**body["file"]) if body["file"] else None
        return cls(**body | tuples | {"amounts": amounts, "file": file})
