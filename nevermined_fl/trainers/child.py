"""Training as the participant asks for it: a child that is started when needed, and whose answers the gate judges."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl import aggregation
from nevermined_fl.digests import BLAKE3, SHA256
from nevermined_fl.errors import TrainerError
from nevermined_fl.files import BLOCK, atomic_file
from nevermined_fl.trainers import gate
from nevermined_fl.trainers.process import Place, TrainerChild

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session.plan import Plan, TensorSchema

__all__ = ["Measured", "Place", "Trained", "TrainerTask"]

_OUTPUT = "output.safetensors"
_MODEL = "model.safetensors"
_CONTROL = "control.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """A judged update: its digest, and what is reported with it."""

    digest: str
    examples: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A judged evaluation."""

    examples: int
    metrics: dict[str, float]


class TrainerTask:
    """Training and evaluation as the participant asks for them: a child that is started when needed, behind the gate.

    Args:
        place: where the buyer's code runs.
        plan: what may leave.
        rows: of the dataset, where their number is known: no answer may claim more examples.
    """

    def __init__(self, place: Place, plan: Plan, rows: int | None = None) -> None:
        self._place = place
        self._plan = plan
        self._rows = rows
        self._child: TrainerChild | None = None
        self._aggregator: Any = aggregation.create(plan.strategy, dict(plan.strategy_options))

    async def initialize(self, seed: int, into: Path, seconds: float) -> Trained:
        """Make the first model; it is in ``into`` afterwards, and counts as one example."""
        await self._ask({"op": "initialize", "seed": seed, "output": _OUTPUT}, seconds)
        return Trained(await self._fetch(into, self._plan.schema, SHA256), 1, {})

    async def fit(self, model: Path, seed: int, into: Path, seconds: float, *, control: Path | None = None) -> Trained:
        """Train; the update, with all that travels beside the weights, is in ``into`` afterwards.

        Args:
            model: the round's model, as the coordinator keeps it.
            seed: for all that is random.
            into: where the update goes.
            seconds: how long it may take.
            control: SCAFFOLD's control variate of this participant; None in its first round.
        """
        request = {"op": "fit", "seed": seed, "output": _OUTPUT, "strategy": self._plan.strategy}
        request |= {"options": asdict(self._aggregator), "control": ""}
        if control is not None:
            await asyncio.to_thread(_copy, control, self._place.scratch / _CONTROL)
            request["control"] = _CONTROL
        examples, metrics = self._judge(await self._ask(request, seconds, model))
        return Trained(await self._fetch(into, self._plan.carried(), BLAKE3), examples, metrics)

    async def evaluate(self, model: Path, seconds: float) -> Measured:
        """Measure a model on the provider's data."""
        return Measured(*self._judge(await self._ask({"op": "evaluate"}, seconds, model)))

    async def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            await child.close()

    def _judge(self, answer: dict[str, Any]) -> tuple[int, dict[str, float]]:
        examples = gate.judge_examples(answer.get("examples"), self._plan, self._rows)
        return examples, gate.judge_metrics(answer.get("metrics"), self._plan)

    async def _fetch(self, into: Path, schema: tuple[TensorSchema, ...], kind: str) -> str:
        """Take the child's output in through the gate; its digest."""
        output = self._place.scratch / _OUTPUT
        digest = await asyncio.to_thread(gate.copy_update, output, into, schema, kind)
        output.unlink(missing_ok=True)
        return digest

    async def _ask(self, request: dict[str, Any], seconds: float, model: Path | None = None) -> dict[str, Any]:
        try:
            if self._child is None:
                self._child = TrainerChild(self._place)
                await self._child.start(dict(self._plan.hyperparameters), seconds)
            if model is not None:
                request |= {
                    "model": await asyncio.to_thread(self._show, model),
                    "extras": list(self._aggregator.EXTRAS),
                }
            return await self._child.ask(request, seconds)
        except (TrainerError, asyncio.CancelledError):
            # Whoever did not wait for an answer would take it for the next one's.
            await self.close()
            raise

    def _show(self, model: Path) -> str:
        """Let the child see the model; the name that it has there."""
        if model.parent == self._place.models:
            return str(model)
        _copy(model, self._place.scratch / _MODEL)
        return _MODEL


def _copy(source: Path, copy: Path) -> None:
    """Copy a file into the scratch folder.

    The child writes there, too, and would have us, who are outside of its sandbox, follow a link to any file of ours.
    """
    with source.open("rb") as file, atomic_file(copy) as into:
        shutil.copyfileobj(file, into, BLOCK)
