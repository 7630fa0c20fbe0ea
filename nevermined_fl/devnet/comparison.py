"""How good is the federated model, against pooled data, each provider alone, and a replay of the session itself?

All of it with the buyer's own Trainer, through ``simulation``: alone and pooled are sessions of one member with as many
rounds. Accuracies are on the data scientist's held-out rows.
"""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nevermined_fl.simulation import simulate
from nevermined_fl.trainers.child import Place, TrainerTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from nevermined_fl.session.plan import Plan

__all__ = ["Comparison", "Run", "accuracies", "compare"]

_POOLED = "pooled"
_METRIC = "accuracy"
_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """A simulated session: its last model, and the file of each round's."""

    model: bytes
    rounds: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs by name; ``replay`` is the session itself, done again in this process."""

    replay: Run
    pooled: Run
    alone: dict[str, Run]


def compare(
    plan: Plan, algorithm: Path, *, parts: Mapping[str, tuple[str, Path]], pooled: Path, initial: bytes, folder: Path
) -> Future[Comparison]:
    """Start all runs in the background; ``parts`` are dataset DID and file by the provider's name."""
    jobs: dict[str, dict[str, Path]] = {name: {did: file} for name, (did, file) in parts.items()}
    jobs[_POOLED] = {_POOLED: pooled}
    jobs[""] = dict(parts.values())

    def one(name: str, datasets: dict[str, Path]) -> Run:
        members = plan.members if not name else tuple(datasets)
        minimum = plan.min_participants if not name else 1
        own = replace(plan, members=members, min_participants=minimum)
        return _run(own, algorithm, datasets, folder / (name or "replay"), initial)

    def everything() -> Comparison:
        with ThreadPoolExecutor(2) as pool:
            futures = {name: pool.submit(one, name, datasets) for name, datasets in jobs.items()}
            runs = {name: future.result() for name, future in futures.items()}
        return Comparison(runs.pop(""), runs.pop(_POOLED), runs)

    background = ThreadPoolExecutor(1)
    future = background.submit(everything)
    background.shutdown(wait=False)
    return future


def accuracies(plan: Plan, algorithm: Path, test: Path, models: Sequence[Path], scratch: Path) -> list[float]:
    """Accuracy of each model file on the rows of ``test``."""
    inputs = scratch / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(test, inputs / test.name)

    async def measure() -> list[float]:
        task = TrainerTask(Place(algorithm, inputs, scratch / "work", raw_output=scratch / "raw.log"), plan)
        try:
            return [(await task.evaluate(model, _SECONDS)).metrics[_METRIC] for model in models]
        finally:
            await task.close()

    return asyncio.run(measure())


def _run(plan: Plan, algorithm: Path, datasets: dict[str, Path], folder: Path, initial: bytes) -> Run:
    kept: list[Path] = []
    (folder / "rounds").mkdir(parents=True)

    def keep(event: Mapping[str, Any]) -> None:
        if event["event"] == "round_committed":
            digest = event["model"].removeprefix("sha256:")
            copy = folder / "rounds" / f"{event['round']}.safetensors"
            shutil.copyfile(folder / "coordinator" / "models" / f"{digest}.safetensors", copy)
            kept.append(copy)

    result = simulate(plan, algorithm, datasets, folder, initial=initial, on_event=keep)
    return Run(result.model, tuple(kept))
