"""Folding: the round's updates -> the next model, block by block through pooled buffers.

Memory is one block per update, whatever the model's size. Files are read with ``pread``; mapped ones would count as
memory. The new model and the server's state appear whole or not at all, so folding again after a crash is harmless.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import atomic_file, digest_of
from nevermined_fl.session import TensorSchema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from nevermined_fl.aggregation.rule import Aggregator

__all__ = ["fold"]

_BLOCK = 64 * 1024
"""Numbers per block: small enough to stay in the processor's cache."""


def fold(
    aggregator: Aggregator,
    schema: Sequence[TensorSchema],
    *,
    previous: Path,
    updates: Sequence[tuple[Path, int]],
    into: Path,
    state_before: Path,
    state_after: Path,
) -> str:
    """Write the next model to ``into``; returns its digest.

    Args:
        aggregator: the plan's strategy.
        schema: of the model.
        previous: the model before.
        updates: file and weight, in the cohort's order.
        into: where the model goes.
        state_before: the server's state after the last round; it need not exist.
        state_after: where the server's state goes, if the strategy has one.
    """
    hasher = hashlib.sha256()
    weights = [float(weight) for _, weight in updates]
    with ExitStack() as stack:
        readers = [stack.enter_context(_Reader(path)) for path in (previous, *(path for path, _ in updates))]
        state = stack.enter_context(_State(aggregator.STATE, schema, state_before, state_after))
        model = stack.enter_context(atomic_file(into))
        _append(model, hasher, safetensors.header_bytes(schema))
        for dtype, position, count, first in _blocks(schema):
            before, *came = [reader.read(dtype, position, count) for reader in readers]
            kept = state.read(first, count)
            after = aggregator.fold(came, weights, before, kept)
            state.write(first, kept)
            _append(model, hasher, np.ascontiguousarray(after).view(np.uint8).data)
    return digest_of(hasher)


def _append(file: IO[bytes], hasher: Any, block: bytes | memoryview) -> None:
    file.write(block)
    hasher.update(block)


def _blocks(schema: Sequence[TensorSchema]) -> list[tuple[str, int, int, int]]:
    """Dtype, byte position, count of numbers, and index of the first of them in the whole model."""
    blocks = []
    first = 0
    for run in safetensors.runs(schema):
        width = safetensors.NUMPY_DTYPES[run.dtype].itemsize
        for position in range(run.begin, run.end, _BLOCK * width):
            count = min(_BLOCK, (run.end - position) // width)
            blocks.append((run.dtype, position, count, first))
            first += count
    return blocks


class _Reader:
    """One file and one buffer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._buffer = memoryview(bytearray(_BLOCK * 8))

    def __enter__(self) -> Self:
        self._handle = os.open(self._path, os.O_RDONLY)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._handle)

    def read(self, dtype: str, position: int, count: int) -> np.ndarray[Any, Any]:
        """A view into the buffer, good until the next read."""
        block = self._buffer[: count * safetensors.NUMPY_DTYPES[dtype].itemsize]
        if os.preadv(self._handle, [block], position) != len(block):
            raise DecodeError(f"{self._path.name} is shorter than its header says", code="truncated")
        return safetensors.as_array(block, dtype)


class _State:
    """The server's state: one flat float64 array per name over all numbers of the model, in one safetensors file."""

    def __init__(self, names: Sequence[str], schema: Sequence[TensorSchema], before: Path, after: Path) -> None:
        self._names = sorted(names)
        self._count = sum(math.prod(tensor.shape) for tensor in schema)
        self._header = safetensors.header_bytes([TensorSchema(name, "F64", (self._count,)) for name in self._names])
        self._before, self._after = before, after
        self._stack = ExitStack()
        self._reader: _Reader | None = None
        self._writer: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._names:
            if self._before.exists():
                self._reader = self._stack.enter_context(_Reader(self._before))
            self._writer = self._stack.enter_context(atomic_file(self._after))
            self._writer.write(self._header)
            self._writer.truncate(len(self._header) + 8 * self._count * len(self._names))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def read(self, first: int, count: int) -> dict[str, np.ndarray[Any, Any]]:
        """The state of some numbers; empty before the first round."""
        if self._reader is None:
            return {}
        reader = self._reader
        return {name: reader.read("F64", self._position(name, first), count).copy() for name in self._names}

    def write(self, first: int, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Keep the state of some numbers."""
        if self._writer is None:
            return
        for name in self._names:
            self._writer.seek(self._position(name, first))
            self._writer.write(np.ascontiguousarray(state[name], dtype="<f8").data)

    def _position(self, name: str, first: int) -> int:
        return len(self._header) + 8 * (self._names.index(name) * self._count + first)
