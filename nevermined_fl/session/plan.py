"""The plan: what a session does, as the coordinator workflow's DDO states it under ``main.parameters``.

The first three names are the Nevermined FL specification's; ``engine`` is reserved for engines other than ``native``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl import aggregation
from nevermined_fl.codecs.schema import DTYPES, TensorSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DTYPES", "FROM_PARTICIPANT", "EarlyStop", "Metric", "Plan", "TensorSchema"]

FROM_PARTICIPANT = "participant"
"""In place of the initial model's digest: one participant makes it with the algorithm's ``initialize(seed)``."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A scalar that may leave a data provider: its name, range, and decimal digits after rounding."""

    name: str
    low: float = 0.0
    high: float = 1.0
    digits: int = 6


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """End before the last round: when ``metric`` reached ``target``, or when it stopped getting better.

    It stopped when none of the last ``patience`` evaluations beat the best one before them by more than ``tolerance``.
    ``goal`` is ``max`` or ``min``. At least one of ``target`` and ``tolerance`` is given.
    """

    metric: str
    goal: str = "max"
    target: float | None = None
    tolerance: float | None = None
    patience: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session does. Times are seconds, weights examples.

    ``members`` are the dataset DIDs that may take part. A round needs ``ceil(participants_ratio * present)`` updates of
    those that are there, at least ``min_participants``; its cohort is ``over_selection`` times as large, and the round
    closes when enough of it reported. A round with too few updates at its deadline is repeated up to ``repeats`` times;
    ``late_updates`` says whether what was trained for it on the same model before still counts (``use``) or not
    (``drop``). ``evaluate_every`` and ``checkpoint_every`` count rounds. ``max_weight`` caps what one participant may claim, ``norm_bound`` the L2 norm of its update minus the
    model, ``control_bound`` that of the change of a control variate that travels beside it. ``precision`` is how numbers cross the wire: whole weights in ``f32``, or changes in ``f16``, ``bf16`` or
    ``int8`` with error feedback. ``arithmetic`` is how they are summed: exact integers (``fixed``) or ``float``.
    ``initial_model`` is a digest or FROM_PARTICIPANT; ``initial_asset`` the DID of the asset that holds that digest's
    file when it is not the algorithm's. ``hyperparameters`` go to the Trainer as they are.
    """

    members: tuple[str, ...]
    rounds: int
    min_participants: int
    initial_model: str
    schema: tuple[TensorSchema, ...]
    participants_ratio: float = 1.0
    strategy: str = "fedavg"
    strategy_options: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    selection_timeout: float = 120.0
    round_timeout: float = 300.0
    max_weight: int = 1_000_000
    metrics: tuple[Metric, ...] = (Metric("accuracy"), Metric("loss", 0.0, 1e6))
    hyperparameters: tuple[tuple[str, Any], ...] = ()
    engine: str = "native"
    over_selection: float = 1.0
    evaluation_timeout: float | None = None
    repeats: int = 0
    late_updates: str = "drop"
    early_stop: EarlyStop | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 0
    norm_bound: float | None = None
    control_bound: float | None = None
    precision: str = "f32"
    arithmetic: str = "fixed"
    initial_asset: str = ""

    def evaluation_seconds(self) -> float:
        """How long an evaluation may take; as long as a round where the plan does not say."""
        return self.round_timeout if self.evaluation_timeout is None else self.evaluation_timeout

    def max_duration(self) -> float:
        """Seconds the session can take at most: selection, then a training and an evaluation phase per round.

        Folding the updates and restarts of the coordinator come on top.
        """
        training = self.rounds * (1 + self.repeats) * self.round_timeout
        first = self.round_timeout * len(self.members) if self.initial_model == FROM_PARTICIPANT else 0.0
        evaluations = math.ceil(self.rounds / self.evaluate_every) if self.metrics else 0
        return self.selection_timeout + first + training + evaluations * self.evaluation_seconds()

    def evaluates(self, round_number: int) -> bool:
        """Whether that round's model is evaluated: every so many rounds, and the last one's."""
        is_last = round_number == self.rounds
        return bool(self.metrics) and (is_last or round_number % self.evaluate_every == 0)

    def bound(self, kind: str) -> float | None:
        """The largest L2 norm of one kind of an update's numbers: of the model's change (``""``), or of an extra."""
        return self.norm_bound if not kind or self.control_bound is None else self.control_bound

    def carried(self) -> tuple[TensorSchema, ...]:
        """The tensors that models and updates of the session have: the plan's, and beside each what the strategy adds.

        ``control/w`` stands beside ``w``, in the same precision but at least F32.
        """
        extras = aggregation.create(self.strategy, dict(self.strategy_options)).EXTRAS
        beside = [
            TensorSchema(f"{extra}/{tensor.name}", "F64" if tensor.dtype == "F64" else "F32", tensor.shape)
            for extra in extras
            for tensor in self.schema
        ]
        return (*self.schema, *beside)

    def model_size(self) -> int:
        """Bytes of tensor data in one model."""
        return sum(tensor.size() for tensor in self.schema)

    def to_parameters(self) -> dict[str, Any]:
        """The JSON form, as in the DDO."""
        return {
            "engine": self.engine,
            "minParticipants": self.min_participants,
            "participantsRatio": self.participants_ratio,
            "rounds": self.rounds,
            "strategy": self.strategy,
            "strategyOptions": dict(self.strategy_options),
            "seed": self.seed,
            "selectionTimeout": self.selection_timeout,
            "roundTimeout": self.round_timeout,
            "maxWeight": self.max_weight,
            "metrics": [{"name": m.name, "low": m.low, "high": m.high, "digits": m.digits} for m in self.metrics],
            "hyperparameters": dict(self.hyperparameters),
            "overSelection": self.over_selection,
            "evaluationTimeout": self.evaluation_timeout,
            "repeats": self.repeats,
            "lateUpdates": self.late_updates,
            "earlyStop": None if self.early_stop is None else asdict(self.early_stop),
            "evaluateEvery": self.evaluate_every,
            "checkpointEvery": self.checkpoint_every,
            "normBound": self.norm_bound,
            "controlBound": self.control_bound,
            "precision": self.precision,
            "arithmetic": self.arithmetic,
            "initialModel": self.initial_model,
            "initialAsset": self.initial_asset,
            "schema": [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in self.schema],
        }

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], members: tuple[str, ...]) -> Plan:
        """Parse and check ``main.parameters``.

        Raises:
            InvalidRequest: naming the parameter, what was expected and what came.
        """
        # The checks know Plan, so they are imported here and not above.
        from nevermined_fl.session.parameters import parse  # noqa: PLC0415 - see above

        return parse(parameters, members)
