"""What the server keeps from round to round beside the model: a strategy's arrays, and what changes left out."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.codecs.blocks import count_of
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.driver.desk import Source
from nevermined_fl.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from nevermined_fl.codecs.blocks import Piece

    Block = np.ndarray[Any, Any]

__all__ = ["State", "write_all"]


class State:
    """The server's state: flat arrays over all numbers of the model, in one safetensors file.

    The strategy's are float64; where changes cross the wire, what they left out (the residual) is kept beside them.
    """

    def __init__(
        self, names: Sequence[str], schema: Sequence[TensorSchema], before: Path, after: Path, *, residual: bool
    ) -> None:
        tensors = [TensorSchema(name, "F64", (count_of(schema),)) for name in names]
        tensors += delta.residual_schema(schema) if residual else ()
        self._header = safetensors.header_bytes(tensors)
        self._size = safetensors.file_size(tensors)
        self._entries = safetensors.entries(tensors)
        self._before, self._after = before, after
        self._stack = ExitStack()
        self._source: Source | None = None
        self._handle = -1

    def __enter__(self) -> Self:
        if self._entries:
            if self._before.exists():
                self._source = Source(self._before)
                self._stack.callback(self._source.close)
            file = self._stack.enter_context(atomic_file(self._after))
            self._handle = file.fileno()
            write_all(self._handle, self._header, 0)
            os.ftruncate(self._handle, self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def read(self, piece: Piece) -> dict[str, Block]:
        """The state of a piece, in arrays of its own; empty before the first round."""
        found = {}
        for entry in self._entries if self._source is not None else ():
            begin, end = self._span(entry, piece)
            assert self._source is not None
            found[entry.name] = self._source.array(entry.dtype, begin, end, memoryview(bytearray(end - begin)))
        return found

    def write(self, piece: Piece, state: dict[str, Block]) -> None:
        """Keep the state of a piece."""
        for entry in self._entries:
            block = np.ascontiguousarray(state[entry.name], safetensors.NUMPY_DTYPES[entry.dtype])
            write_all(self._handle, block.data.cast("B"), self._span(entry, piece)[0])

    def _span(self, entry: safetensors.Entry, piece: Piece) -> tuple[int, int]:
        width = safetensors.NUMPY_DTYPES[entry.dtype].itemsize
        begin = len(self._header) + entry.begin + piece.first * width
        return begin, begin + piece.count * width


def write_all(handle: int, block: bytes | memoryview, position: int) -> None:
    """Write at a position, all of it."""
    rest = memoryview(block)
    while rest:
        count = os.pwrite(handle, rest, position)
        rest, position = rest[count:], position + count
