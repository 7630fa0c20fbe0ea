"""The plan: what a session does, as the coordinator workflow's DDO states it under ``main.parameters``.

The first three names are the Nevermined FL specification's; ``engine`` is reserved for engines other than ``native``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.codecs.schema import DTYPES, TensorSchema

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DTYPES", "Metric", "Plan", "TensorSchema"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A scalar that may leave a data provider: its name, range, and decimal digits after rounding."""

    name: str
    low: float = 0.0
    high: float = 1.0
    digits: int = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session does. Times are seconds, weights examples.

    ``members`` are the dataset DIDs that may take part. A cohort is ``ceil(participants_ratio * joined)`` of those
    that joined, at least ``min_participants``. ``max_weight`` caps what one participant may claim. ``hyperparameters``
    go to the Trainer as they are.
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

    def max_duration(self) -> float:
        """Seconds the session can take at most: selection, then a training and an evaluation phase per round.

        Folding the updates and restarts of the coordinator come on top.
        """
        return self.selection_timeout + 2 * self.rounds * self.round_timeout

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
            "initialModel": self.initial_model,
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
