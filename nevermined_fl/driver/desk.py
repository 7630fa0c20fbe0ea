"""What one folding thread has before it: a piece of the model, of every update and of the server's state, in its own buffers.

Files are read with ``pread``; mapped ones would count as memory. Open files are shared, buffers are not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.errors import DecodeError, LocalProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.codecs.blocks import Piece

    Block = np.ndarray[Any, Any]

__all__ = ["Blocks", "Desk", "Source"]


class Source:
    """A file of numbers, open: a model or update, whole or, with a layout, as changes of a model."""

    def __init__(self, path: Path, precision: str = "f32", layout: delta.Layout | None = None) -> None:
        self._name = path.name
        self._precision = precision
        self._layout = layout
        self._handle = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def read(self, piece: Piece, before: Block | None, buffer: memoryview) -> Block:
        """The numbers of a piece, in the model's dtype; they may lie in the buffer."""
        if self._layout is None or before is None:
            return self.array(piece.dtype, piece.position, piece.position + piece.size(), buffer)
        begin, end = self._layout.scales(piece)
        scales = self.array("F32", begin, end, buffer)
        numbers = self.array(self._layout.dtype, *self._layout.changes(piece), buffer[scales.nbytes :])
        return delta.apply(before, delta.decode(delta.Encoded(numbers, scales), self._precision))

    def largest_change(self, piece: Piece, buffer: memoryview) -> float:
        """Of ``int8`` changes: what none of a piece's exceeds. A scale counts with the largest number of its own group."""
        if self._layout is None:
            raise LocalProtocolError("a file of whole numbers holds no changes")
        begin, end = self._layout.scales(piece)
        scales = self.array("F32", begin, end, buffer)
        numbers = self.array(self._layout.dtype, *self._layout.changes(piece), buffer[scales.nbytes :])
        return delta.peak(delta.Encoded(numbers, scales))

    def array(self, dtype: str, begin: int, end: int, buffer: memoryview) -> Block:
        """Some bytes of the file as numbers, in the buffer."""
        block = buffer[: end - begin]
        if os.preadv(self._handle, [block], begin) != len(block):
            raise DecodeError(f"{self._name} is shorter than its header says", code="truncated")
        return safetensors.as_array(block, dtype)


class Blocks(Sequence["Block"]):
    """One piece of every update, read when it is asked for; ``part`` is which of its numbers are wanted."""

    def __init__(self, desk: Desk, piece: Piece, before: Block, part: slice) -> None:
        self._desk, self._piece, self._before, self._part = desk, piece, before, part

    def __len__(self) -> int:
        return len(self._desk.updates)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> list[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | list[Block]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._desk.update(index, self._piece, self._before)[self._part]


class Desk:
    """The buffers of one thread.

    Args:
        previous: the model before.
        updates: in the cohort's order.
        count: numbers in the largest piece.
        at_once: whether every update has a buffer of its own, or all share one.
    """

    def __init__(self, previous: Source, updates: Sequence[Source], count: int, *, at_once: bool) -> None:
        self.updates = updates
        self._previous = previous
        self._size = 8 * count + 4096
        self._before = self._buffer()
        self._own: dict[int, memoryview] = {}
        self._shared = None if at_once else self._buffer()

    def before(self, piece: Piece) -> Block:
        """The model before; good until the next piece."""
        return self._previous.read(piece, None, self._before)

    def update(self, index: int, piece: Piece, before: Block) -> Block:
        """One update's numbers."""
        return self.updates[index].read(piece, before, self._of(index))

    def largest_change(self, index: int, piece: Piece) -> float:
        """What none of one update's ``int8`` changes exceeds."""
        return self.updates[index].largest_change(piece, self._of(index))

    def _of(self, index: int) -> memoryview:
        if self._shared is not None:
            return self._shared
        return self._own[index] if index in self._own else self._own.setdefault(index, self._buffer())

    def _buffer(self) -> memoryview:
        return np.empty(self._size, np.uint8).data  # not zeroed, as a bytearray would be
