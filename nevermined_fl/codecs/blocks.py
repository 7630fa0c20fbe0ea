"""Which bytes of a model's file are worked on at a time: blocks of one dtype, the same for everyone who reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nevermined_fl.codecs import safetensors
from nevermined_fl.codecs.schema import WIRE_DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.codecs.schema import TensorSchema

__all__ = ["Piece", "count_of", "pieces"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some numbers of one run: ``position`` is bytes in the file, ``first`` the index among all numbers of the model."""

    dtype: str
    position: int
    count: int
    first: int

    def size(self) -> int:
        """Bytes."""
        return self.count * WIRE_DTYPES[self.dtype]


def count_of(schema: Sequence[TensorSchema]) -> int:
    """Numbers of a model."""
    return sum(math.prod(tensor.shape) for tensor in schema)


def pieces(schema: Sequence[TensorSchema], count: int) -> list[Piece]:
    """A model's file in the order of its bytes, in pieces of at most ``count`` numbers."""
    found: list[Piece] = []
    first = 0
    for run in safetensors.runs(schema):
        width = WIRE_DTYPES[run.dtype]
        for position in range(run.begin, run.end, count * width):
            found.append(Piece(run.dtype, position, min(count, (run.end - position) // width), first))
            first += found[-1].count
    return found
