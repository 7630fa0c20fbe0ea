"""The participant's end of the buyer's process: start it, ask it, judge what it says, end it.

Every failure of the buyer's code is a TrainerError with the exception's type and the line in the buyer's file.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from nevermined_fl import aggregation
from nevermined_fl.errors import DecodeError, TrainerError
from nevermined_fl.files import BLOCK, atomic_file, write_atomic
from nevermined_fl.trainers import frames, gate, sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nevermined_fl.session.plan import Plan, TensorSchema

__all__ = ["Measured", "Place", "Trained", "TrainerChild", "TrainerTask"]

_OUTPUT = "output.safetensors"
_MODEL = "model.safetensors"
_CONTROL = "control.safetensors"
_HYPERPARAMETERS = "hyperparameters.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the buyer's code runs.

    ``inputs``, ``algorithm`` and ``models`` are read-only to it, ``scratch`` is all it can write. Models that are not in
    ``models`` are copied into scratch. ``raw_output`` takes what it prints, for the provider's eyes alone; None is this
    process's stderr.
    """

    algorithm: Path
    inputs: Path
    scratch: Path
    raw_output: Path | None = None
    models: Path | None = None

    def read_only(self) -> tuple[Path, ...]:
        """What it may read besides its scratch."""
        return (self.inputs, self.algorithm, *((self.models,) if self.models else ()))


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


class TrainerChild:
    """One running child: frames out, frames in."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._process: asyncio.subprocess.Process | None = None
        self._reader = asyncio.StreamReader()
        self._transport: asyncio.ReadTransport | None = None
        self._requests = -1

    async def start(self, hyperparameters: Mapping[str, Any], seconds: float) -> None:
        """Start the child and let it make the trainer."""
        self._place.scratch.mkdir(parents=True, exist_ok=True)
        write_atomic(self._place.scratch / _HYPERPARAMETERS, json.dumps(dict(hyperparameters)))
        inward, self._requests = os.pipe()
        outward, replies = os.pipe()
        try:
            self._process = await self._spawn(inward, replies)
        finally:
            os.close(inward)
            os.close(replies)
            self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(self._reader), os.fdopen(outward, "rb", buffering=0)
            )
        await self.ask({"op": "open", "hyperparameters": _HYPERPARAMETERS}, seconds)

    async def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One request and its answer, which only the gate may believe."""
        try:
            async with asyncio.timeout(seconds):
                frames.write(self._requests, request)
                answer = await frames.read_async(self._reader)
        except TimeoutError as error:
            await self.close()
            raise TrainerError(f"the algorithm took longer than {seconds:.0f} s", kind="TimeoutError") from error
        except (DecodeError, OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise TrainerError("the algorithm's process ended", kind="ChildProcessError") from error
        if "error" in answer:
            raise gate.judge_failure(answer["error"], _lines(self._place.algorithm))
        return answer

    async def close(self) -> None:
        """Kill it."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1
        if self._transport is not None:
            self._transport.close()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _spawn(self, inward: int, replies: int) -> asyncio.subprocess.Process:
        place = self._place
        host = [sys.executable, "-s", "-P", "-m", "nevermined_fl.trainers.host", str(place.algorithm)]
        command = sandbox.wrap(
            [*host, str(inward), str(replies)],
            read_only=place.read_only(),
            scratch=place.scratch,
        )
        variables = {
            "NEVERMINED_INPUTS_PATH": str(place.inputs),
            "NEVERMINED_TRANSFORMATIONS_PATH": str(place.algorithm.parent),
            "NEVERMINED_OUTPUTS_PATH": str(place.scratch),
        }
        raw = _raw_output(place.raw_output)
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=raw,
                stderr=raw,
                cwd=place.scratch,
                env=sandbox.clean_environment(place.scratch) | variables,
                pass_fds=(inward, replies),
            )
        except OSError as error:
            raise TrainerError("the algorithm's process could not be started", kind="ChildProcessError") from error
        finally:
            if raw is not sys.stderr:
                raw.close()


class TrainerTask:
    """Training and evaluation as the participant asks for them: a child that is started when needed, behind the gate.

    Args:
        place: where the buyer's code runs.
        plan: what may leave.
        rows: number of rows of the dataset, where it is known.
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
        return Trained(await self._fetch(into, self._plan.schema), 1, {})

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
        return Trained(await self._fetch(into, self._plan.carried()), examples, metrics)

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

    async def _fetch(self, into: Path, schema: tuple[TensorSchema, ...]) -> str:
        """Take the child's output in through the gate; its digest."""
        output = self._place.scratch / _OUTPUT
        digest = await asyncio.to_thread(gate.copy_update, output, into, schema)
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


def _raw_output(path: Path | None) -> IO[Any]:
    return sys.stderr if path is None else path.open("ab")


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") + 1
