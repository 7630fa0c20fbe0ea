"""What does a data scientist publish before buying: the algorithm, the session, and the participants' workflow?"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl import __version__, assets, trainers
from nevermined_fl.assets import About, Container, FileEntry
from nevermined_fl.errors import InvalidRequest, SettingsError
from nevermined_fl.session.plan import FROM_PARTICIPANT, EarlyStop, Metric, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.session.plan import TensorSchema

__all__ = [
    "Algorithm",
    "PlanSettings",
    "allow_download",
    "prepare_algorithm",
    "publish_algorithm",
    "publish_session",
    "publish_workflow",
]

COORDINATOR = Container("nevermined-fl/coordinator", __version__)
PARTICIPANT = Container("nevermined-fl/participant", __version__)
_MAX_ALGORITHM = 1024**2
_INITIAL = "initial.safetensors"
_FROM_ALGORITHM = "algorithm"


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What a data scientist decides about a session; the rest of the plan follows from algorithm and datasets.

    Seconds, examples and ratios as in :class:`nevermined_fl.session.plan.Plan`. ``min_participants`` 0 means all.
    Training begins with the algorithm's own first model (``initial_model`` ``algorithm``), with one that a participant
    makes (``participant``), or with the model of an earlier session, whose asset's DID is ``continue_from``.
    """

    rounds: int = 10
    min_participants: int = 0
    participants_ratio: float = 1.0
    over_selection: float = 1.0
    strategy: str = "fedavg"
    strategy_options: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    selection_timeout: float = 120.0
    round_timeout: float = 300.0
    evaluation_timeout: float | None = None
    repeats: int = 0
    late_updates: str = "drop"
    early_stop: EarlyStop | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 0
    max_weight: int = 1_000_000
    norm_bound: float | None = None
    control_bound: float | None = None
    precision: str = "f32"
    arithmetic: str = "fixed"
    metrics: tuple[Metric, ...] = (Metric("accuracy"), Metric("loss", 0.0, 1e6))
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    initial_model: str = _FROM_ALGORITHM
    continue_from: str = ""

    def begins_with_own_model(self) -> bool:
        """Whether training begins with what the algorithm's ``initialize`` makes at the data scientist's.

        Raises:
            InvalidRequest: ``initial_model`` is unknown, or contradicts ``continue_from``.
        """
        if self.initial_model not in {_FROM_ALGORITHM, FROM_PARTICIPANT}:
            known = f"{_FROM_ALGORITHM} or {FROM_PARTICIPANT}"
            raise InvalidRequest(f"initial_model: expected {known}, got {self.initial_model!r}", check="plan")
        if self.continue_from and self.initial_model == FROM_PARTICIPANT:
            raise InvalidRequest(
                "initial_model: a session that continues from an earlier model begins with that one", check="plan"
            )
        return not self.continue_from and self.initial_model == _FROM_ALGORITHM

    def plan(self, algorithm: Algorithm, datasets: Sequence[str], *, earlier: str = "") -> Plan:
        """The plan of this algorithm over these datasets, checked; ``earlier`` is the digest of ``continue_from``'s file.

        Raises:
            InvalidRequest: naming the parameter that is out of bounds.
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("min_participants", "strategy_options", "hyperparameters", "initial_model", "continue_from"):
            del own[name]
        first = algorithm.initial_digest() if self.begins_with_own_model() else FROM_PARTICIPANT
        plan = Plan(
            members=tuple(datasets),
            min_participants=self.min_participants or len(datasets),
            initial_model=earlier if self.continue_from else first,
            initial_asset=self.continue_from,
            schema=algorithm.schema,
            strategy_options=tuple(sorted(self.strategy_options.items())),
            hyperparameters=tuple(sorted(self.hyperparameters.items())),
            **own,
        )
        return Plan.from_parameters(plan.to_parameters(), plan.members)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm file with its first model, which is empty where sessions begin with another; ``did`` once published."""

    name: str
    source: bytes
    initial: bytes
    schema: tuple[TensorSchema, ...]
    did: str = ""

    def digest(self) -> str:
        """What providers approve: ``sha256:<hex>`` of the file."""
        return f"sha256:{hashlib.sha256(self.source).hexdigest()}"

    def initial_digest(self) -> str:
        """``sha256:<hex>`` of the first model; empty when there is none."""
        return f"sha256:{hashlib.sha256(self.initial).hexdigest()}" if self.initial else ""

    def files(self) -> tuple[FileEntry, ...]:
        """As its DDO lists them."""
        trainer = FileEntry(self.name, "text/x-python", len(self.source), self.digest()[7:])
        if not self.initial:
            return (trainer,)
        digest = self.initial_digest()[7:]
        return trainer, FileEntry(_INITIAL, "application/octet-stream", len(self.initial), digest)


def prepare_algorithm(file: Path | str, settings: PlanSettings) -> Algorithm:
    """Run ``initialize`` of an algorithm file locally, in a process of its own: it says at least the model's schema.

    Raises:
        InvalidRequest: the settings contradict themselves about the first model.
        SettingsError: no such file, or it is too large.
        TrainerError: the algorithm raised, or its model cannot be one.
    """
    path, keeps_initial = Path(file), settings.begins_with_own_model()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"algorithm {path} cannot be read: {error.strerror}") from error
    if not 0 < len(source) <= _MAX_ALGORITHM:
        raise SettingsError(f"{path} has {len(source)} bytes; an algorithm has 1 to {_MAX_ALGORITHM}")
    initial, schema = trainers.initial_model(path, settings.hyperparameters, settings.seed)
    return Algorithm("algorithm.py", source, initial if keeps_initial else b"", schema)


def publish_algorithm(market: Market, algorithm: Algorithm, *, gateway: str, name: str, description: str = "") -> str:
    """Upload the algorithm's files to a gateway and publish its DDO; the DID.

    Raises:
        InvalidRequest: the gateway states another digest than ours for what it received.
    """
    client = market.gateway(gateway)
    for content, entry in zip((algorithm.source, algorithm.initial), algorithm.files(), strict=False):
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
    """Publish the coordinator's workflow; its DID is the session's.

    The coordinator's provider gets the first model: uploaded to its gateway, or as the right to download an earlier one.
    """
    if plan.initial_asset:
        allow_download(market, plan.initial_asset, market.owner(compute))
    elif algorithm.initial:
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
        allow_download(market, algorithm, owner)
    about = About(name, time.time(), description, tags=("federated-learning", "workflow"))
    return market.publish(
        lambda publisher: assets.build_workflow(
            publisher, about, session=session, datasets=spec.datasets, algorithm=algorithm, container=PARTICIPANT
        )
    )


def allow_download(market: Market, did: str, address: str) -> None:
    """Grant ``address`` the download of an asset of ours, unless the chain allows it already."""
    if not market.chain.may_download(did, address):
        market.chain.grant_permission(market.account, did, address)


def _upload(client: Any, content: bytes, entry: FileEntry) -> None:
    stated = client.upload(content)
    if stated != entry.sha256:
        raise InvalidRequest(f"{client.url} says that {entry.name} has sha256 {stated}, we sent {entry.sha256}")
