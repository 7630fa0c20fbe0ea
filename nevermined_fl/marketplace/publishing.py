"""What does a data scientist publish before buying: the algorithm, the session, and the participants' workflow?"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl import __version__, assets, trainers
from nevermined_fl.assets import About, Container, FileEntry
from nevermined_fl.errors import InvalidRequest, SettingsError
from nevermined_fl.session.plan import Metric, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Algorithm", "PlanSettings", "prepare_algorithm", "publish_algorithm", "publish_session", "publish_workflow"]

COORDINATOR = Container("nevermined-fl/coordinator", __version__)
PARTICIPANT = Container("nevermined-fl/participant", __version__)
_MAX_ALGORITHM = 1024**2
_INITIAL = "initial.safetensors"


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a data scientist decides about a session; the rest of the plan follows from algorithm and datasets.

    Seconds, examples and ratios as in :class:`nevermined_fl.session.plan.Plan`. ``min_participants`` 0 means all.
    """

    rounds: int = 10
    min_participants: int = 0
    participants_ratio: float = 1.0
    strategy: str = "fedavg"
    strategy_options: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    selection_timeout: float = 120.0
    round_timeout: float = 300.0
    max_weight: int = 1_000_000
    metrics: tuple[Metric, ...] = (Metric("accuracy"), Metric("loss", 0.0, 1e6))
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, algorithm: Algorithm, datasets: Sequence[str]) -> Plan:
        """The plan of this algorithm over these datasets, checked.

        Raises:
            InvalidRequest: naming the parameter that is out of bounds.
        """
        plan = Plan(
            members=tuple(datasets),
            rounds=self.rounds,
            min_participants=self.min_participants or len(datasets),
            initial_model=algorithm.initial_digest(),
            schema=algorithm.schema,
            participants_ratio=self.participants_ratio,
            strategy=self.strategy,
            strategy_options=tuple(sorted(self.strategy_options.items())),
            seed=self.seed,
            selection_timeout=self.selection_timeout,
            round_timeout=self.round_timeout,
            max_weight=self.max_weight,
            metrics=self.metrics,
            hyperparameters=tuple(sorted(self.hyperparameters.items())),
        )
        return Plan.from_parameters(plan.to_parameters(), plan.members)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm file with its first model; ``did`` once it is published."""

    name: str
    source: bytes
    initial: bytes
    schema: tuple[TensorSchema, ...]
    did: str = ""

    def digest(self) -> str:
        """What providers approve: ``sha256:<hex>`` of the file."""
        return f"sha256:{hashlib.sha256(self.source).hexdigest()}"

    def initial_digest(self) -> str:
        """``sha256:<hex>`` of the first model."""
        return f"sha256:{hashlib.sha256(self.initial).hexdigest()}"

    def files(self) -> tuple[FileEntry, FileEntry]:
        """As its DDO lists them."""
        return (
            FileEntry(self.name, "text/x-python", len(self.source), self.digest()[7:]),
            FileEntry(_INITIAL, "application/octet-stream", len(self.initial), self.initial_digest()[7:]),
        )


def prepare_algorithm(file: Path | str, settings: PlanSettings) -> Algorithm:
    """Run ``initialize`` of an algorithm file locally, in a process of its own.

    Raises:
        SettingsError: no such file, or it is too large.
        TrainerError: the algorithm raised, or its model cannot be one.
    """
    path = Path(file)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"algorithm {path} cannot be read: {error.strerror}") from error
    if not 0 < len(source) <= _MAX_ALGORITHM:
        raise SettingsError(f"{path} has {len(source)} bytes; an algorithm has 1 to {_MAX_ALGORITHM}")
    initial, schema = trainers.initial_model(path, settings.hyperparameters, settings.seed)
    return Algorithm("algorithm.py", source, initial, schema)


def publish_algorithm(market: Market, algorithm: Algorithm, *, gateway: str, name: str, description: str = "") -> str:
    """Upload the algorithm's files to a gateway and publish its DDO; the DID.

    Raises:
        InvalidRequest: the gateway states another digest than ours for what it received.
    """
    client = market.gateway(gateway)
    for content, entry in zip((algorithm.source, algorithm.initial), algorithm.files(), strict=True):
        _upload(client, content, entry)
    about = About(name, time.time(), description, tags=("federated-learning", "algorithm"))
    return market.publish(
        lambda publisher: assets.build_algorithm(
            publisher, about, gateway_url=gateway, files=algorithm.files(), container=PARTICIPANT
        )
    )


def publish_session(
    market: Market, plan: Plan, algorithm: Algorithm, *, compute: str, name: str, description: str = ""
) -> str:
    """Publish the coordinator's workflow; its DID is the session's. The coordinator's gateway gets the first model."""
    _upload(market.gateway_of(compute), algorithm.initial, algorithm.files()[1])
    about = About(name, time.time(), description, tags=("federated-learning", "session"))
    return market.publish(
        lambda publisher: assets.build_session(
            publisher,
            about,
            datasets=plan.members,
            compute=compute,
            parameters=plan.to_parameters(),
            container=COORDINATOR,
        )
    )


def publish_workflow(market: Market, *, session: str, algorithm: str, name: str, description: str = "") -> str:
    """Let the session's data providers download the algorithm, and publish the workflow that they all run; its DID."""
    spec = assets.session_spec(market.metadata.resolve(session))
    owners = {market.owner(did) for did in (*spec.datasets, spec.compute)} - {market.account.address}
    for owner in sorted(owners):
        if not market.chain.may_download(algorithm, owner):
            market.chain.grant_permission(market.account, algorithm, owner)
    about = About(name, time.time(), description, tags=("federated-learning", "workflow"))
    return market.publish(
        lambda publisher: assets.build_workflow(
            publisher, about, session=session, datasets=spec.datasets, algorithm=algorithm, container=PARTICIPANT
        )
    )


def _upload(client: Any, content: bytes, entry: FileEntry) -> None:
    stated = client.upload(content)
    if stated != entry.sha256:
        raise InvalidRequest(f"{client.url} says that {entry.name} has sha256 {stated}, we sent {entry.sha256}")
