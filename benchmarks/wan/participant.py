"""``python -m benchmarks.wan.participant FOLDER``: a real participant that trains on its share of the digits."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.participants import read_plan, take_part
from benchmarks.wan import training
from nevermined_fl.codecs import safetensors
from nevermined_fl.files import sha256_bytes
from nevermined_fl.trainers.child import Measured, Trained

if TYPE_CHECKING:
    import numpy as np


class Digits:
    """The shared training, as a participant asks for it."""

    def __init__(self, client: int, clients: int) -> None:
        self._client = client
        self._x, self._y = training.rows(client, clients)
        self._round = 0

    async def fit(self, model: Path, seed: int, into: Path, seconds: float, *, control: Path | None = None) -> Trained:
        """One local epoch."""
        self._round += 1
        return await asyncio.to_thread(self._fit, model, into)

    async def evaluate(self, model: Path, seconds: float) -> Measured:
        """How many digits of its own it tells right."""
        share = training.accuracy(load_weights(model), self._x, self._y)
        return Measured(len(self._y), {"accuracy": share})

    def _fit(self, model: Path, into: Path) -> Trained:
        # The same seed as on Flower's side, not the plan's.
        weights = training.train(load_weights(model), self._x, self._y, training.seed(self._round, self._client))
        raw = dump_weights(weights)
        into.write_bytes(raw)
        return Trained(sha256_bytes(raw), len(self._y), {})


def load_weights(path: Path) -> list[np.ndarray]:
    """A model file as the training takes it."""
    tensors = safetensors.load(path.read_bytes())
    return [tensors[name] for name in training.SHAPES]


def dump_weights(weights: list[np.ndarray]) -> bytes:
    """The bytes of a model file."""
    return safetensors.dump(dict(zip(training.SHAPES, weights, strict=True)))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    job = json.loads((place / "job.json").read_text())
    asyncio.run(take_part(place, read_plan(place), Digits(job["client"], job["clients"])))
