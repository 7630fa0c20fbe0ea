"""``python -m benchmarks.folding JOB``: fold prepared updates as the driver does, in a process of its own; prints one JSON line.

What is counted is all of it: reading the updates, the strategy, writing the model and its digest. ``rule_gb_per_cpu_s`` is
the strategy alone, over blocks in memory, and ``numpy_gb_per_cpu_s`` what numpy needs for the same, all at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import measure
from benchmarks.work import Work, prepare_model
from nevermined_fl import aggregation
from nevermined_fl.aggregation.rule import Known
from nevermined_fl.codecs import safetensors
from nevermined_fl.driver.folding import Given, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nevermined_fl.aggregation.rule import Aggregator

    Block = np.ndarray[Any, Any]

_TRIM = 0.2
_PIECE = 1 << 20
_REPEATS = 3
_BLOCK, _BLOCKS = 64 * 1024, 100
"""Numbers that a strategy gets at a time, and how often."""


@dataclass(frozen=True, slots=True)
class Folding:
    """A strategy, and what it must do per second of processor time at least."""

    strategy: str
    arithmetic: str = "fixed"
    options: tuple[tuple[str, float], ...] = ()
    least_gb_per_cpu_s: float | None = None


FOLDINGS = (
    Folding("median", least_gb_per_cpu_s=2.0),
    Folding("trimmed_mean", options=(("trim", _TRIM),), least_gb_per_cpu_s=2.0),
    Folding("fedavg"),
    Folding("fedavg", arithmetic="float"),
)


def measure_folding(sizes: tuple[int, ...], clients: int, scratch: Path | None) -> Iterator[dict[str, Any]]:
    """A line for each strategy and number of parameters."""
    for params in sizes:
        work = Work(params, clients, rounds=0)
        with tempfile.TemporaryDirectory(prefix="nevermined-fl-folding-", dir=scratch) as name:
            for number in range(clients + 1):
                prepare_model(Path(name) / f"{number}.safetensors", work.schema(), seed=number, variants=1)
            for folding in FOLDINGS:
                yield _measure_one(folding, work, Path(name))


def _measure_one(folding: Folding, work: Work, folder: Path) -> dict[str, Any]:
    job = {"strategy": folding.strategy, "arithmetic": folding.arithmetic, "options": dict(folding.options)}
    job |= {"params": work.params, "clients": work.clients, "folder": str(folder)}
    command = [sys.executable, "-m", "benchmarks.folding", json.dumps(job)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    compared = [_compared(folding, *pieces) for pieces in _pieces(work, folder)]
    apart, used = max(found[0] for found in compared), sum(found[1] for found in compared)
    line = {"strategy": folding.strategy, "arithmetic": folding.arithmetic, "params": work.params}
    line |= {"clients": work.clients, **json.loads(ended.stdout), "ulps_from_numpy": apart}
    line |= {"numpy_gb_per_cpu_s": round(work.theoretical_bytes() / 2e9 / used, 3)}
    if folding.least_gb_per_cpu_s is not None:
        slow = {"gb_per_cpu_s": folding.least_gb_per_cpu_s} if line["gb_per_cpu_s"] < folding.least_gb_per_cpu_s else {}
        line |= {"missed": slow | ({"ulps_from_numpy": 0} if apart else {})}
    return line


def _pieces(work: Work, folder: Path) -> Iterator[tuple[Block, Block]]:
    """Piece by piece, our result and what it was made of, a row per update."""
    start = len(safetensors.header_bytes(work.schema()))
    names = ["model", *(str(number + 1) for number in range(work.clients))]
    files = [np.memmap(folder / f"{name}.safetensors", "<f4", "r", start) for name in names]
    for first in range(0, work.params, _PIECE):
        ours, *came = [file[first : first + _PIECE] for file in files]
        yield ours, np.stack(came)


def _compared(folding: Folding, ours: Block, came: Block) -> tuple[int, float]:
    """How many floats lie between our result and numpy's (0 is bit-equal), and the processor time that numpy's took."""
    began = time.process_time()
    wanted = _numpy(folding, came)
    used = time.process_time() - began
    return int(np.abs(ours.view(np.int32).astype(np.int64) - wanted.view(np.int32)).max()), used


def _numpy(folding: Folding, came: Block) -> Block:
    """What numpy makes of it, all at once."""
    if folding.strategy == "median":
        return np.asarray(np.median(came, axis=0), np.float32)
    if folding.strategy == "trimmed_mean":
        cut = int(_TRIM * len(came))
        return np.sort(came, axis=0)[cut : len(came) - cut].mean(axis=0, dtype=np.float64).astype(np.float32)
    weights = np.arange(len(came)) + 10
    return np.average(came.astype(np.float64), axis=0, weights=weights).astype(np.float32)


def _fold(job: dict[str, Any]) -> dict[str, Any]:
    folder, work = Path(job["folder"]), Work(job["params"], job["clients"], rounds=0)
    aggregator = aggregation.create(job["strategy"], job["options"])
    paths = [folder / f"{number}.safetensors" for number in range(work.clients + 1)]
    updates = [Given(path, 10 + number, 8.0) for number, path in enumerate(paths[1:])]
    before, used, took = measure.peak_rss_mb(os.getpid()), [], []
    for _ in range(1 + _REPEATS):
        clocks = time.process_time(), time.perf_counter()
        fold(
            aggregator,
            work.schema(),
            arithmetic=job["arithmetic"],
            members=work.clients,
            previous=paths[0],
            updates=updates,
            into=folder / "model.safetensors",
            state_before=folder / "before.state",
            state_after=folder / "after.state",
        )
        used.append(time.process_time() - clocks[0])
        took.append(time.perf_counter() - clocks[1])
    best = sorted(used[1:])[_REPEATS // 2]
    return {
        "gb_per_cpu_s": round(work.theoretical_bytes() / 2e9 / best, 3),
        "rule_gb_per_cpu_s": round(_rule_alone(aggregator, job["arithmetic"], work.clients), 3),
        "cpu_s": round(best, 4),
        "wall_s": round(sorted(took[1:])[_REPEATS // 2], 4),
        "rss_mb": round(measure.peak_rss_mb(os.getpid()), 1),
        "rss_before_mb": round(before, 1),
    }


def _rule_alone(aggregator: Aggregator, arithmetic: str, clients: int) -> float:
    """The strategy over one piece of every update, again and again; GB of input per second of processor time."""
    blocks = list(np.random.default_rng(7).standard_normal((clients, _BLOCK), np.float32))
    peaks = tuple(float(np.abs(block).max()) for block in blocks) if arithmetic == "fixed" else None
    known = Known(tuple(range(10, 10 + clients)), peaks, clients)
    before, used = np.zeros(_BLOCK, np.float32), []
    for _ in range(1 + _BLOCKS):
        began = time.process_time()
        aggregator.fold(blocks, known, before, {})
        used.append(time.process_time() - began)
    return clients * _BLOCK * 4 / 1e9 / median(used[1:])


if __name__ == "__main__":
    print(json.dumps(_fold(json.loads(sys.argv[1]))))
