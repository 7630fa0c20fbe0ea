"""The buyer's process: start it in its sandbox, ask it, end it.

Every failure of the buyer's code is a TrainerError with the exception's type and the line in the buyer's file.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError, TrainerError
from nevermined_fl.files import write_atomic
from nevermined_fl.trainers import frames, gate, sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Place", "TrainerChild"]

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


def _raw_output(path: Path | None) -> IO[Any]:
    return sys.stderr if path is None else path.open("ab")


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") + 1
