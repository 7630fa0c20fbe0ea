"""Which numbers of a file are the model's, and which travel beside them?"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from nevermined_fl.codecs import safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nevermined_fl.codecs.blocks import Piece
    from nevermined_fl.session import TensorSchema

__all__ = ["Parts"]


class Parts:
    """Ranges of numbers of one kind each, in the order of the file.

    Args:
        schema: of the model, with what travels beside it.
        extras: the strategy's. ``<extra>/<name>`` is one if the model has a tensor ``<name>``; else it is the model's own.
    """

    def __init__(self, schema: Sequence[TensorSchema], extras: Sequence[str]) -> None:
        self.kinds = ("", *extras)
        names = {tensor.name for tensor in schema}
        self._starts, self._extras = [0], [""]
        first = 0
        for entry in safetensors.entries(schema):
            extra, _, beside = entry.name.partition("/")
            extra = extra if extra in extras and beside in names else ""
            if extra != self._extras[-1]:
                self._starts.append(first)
                self._extras.append(extra)
            first += math.prod(entry.shape)

    def of(self, piece: Piece) -> Iterator[tuple[slice, str]]:
        """The parts of a piece, and which extra each is of; mostly there is one, of none."""
        index = bisect_right(self._starts, piece.first) - 1
        begin, end = piece.first, piece.first + piece.count
        while begin < end:
            stop = min(end, self._starts[index + 1]) if index + 1 < len(self._starts) else end
            yield slice(begin - piece.first, stop - piece.first), self._extras[index]
            begin, index = stop, index + 1
