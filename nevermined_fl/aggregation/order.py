"""Order statistics of each coordinate: which values lie in the middle, or between the smallest and the largest?

Up to 64 updates go through a sorting network, block by block; more of them are sorted column by column, because networks
grow with ``n * log(n)**2``. Which of -0.0 and 0.0 is the smaller is not said. Memory is a strip of numbers per update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nevermined_fl.aggregation import network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["between", "middle"]

_NETWORK_UP_TO = 64
_STRIP = 32 * 1024  # numbers at a time, so that what is compared stays in the processor's cache
_COLUMNS = 2 * 1024

Rows = tuple[slice, list["Block"]]


def middle(blocks: Sequence[Block]) -> Iterator[Rows]:
    """Strip by strip: the middle value of each coordinate, or the two in the middle in any order."""
    count = len(blocks)
    if count > _NETWORK_UP_TO:
        return _sorted(blocks, (count - 1) // 2, count // 2 + 1)
    return _run(network.middle(count), blocks)


def between(blocks: Sequence[Block], low: int, high: int) -> Iterator[Rows]:
    """Strip by strip: of each coordinate the ``low``-th to ``high - 1``-th smallest value, in order.

    The rows are good until the next strip is asked for.
    """
    if len(blocks) > _NETWORK_UP_TO:
        return _sorted(blocks, low, high)
    return _run(network.places(len(blocks), low, high), blocks)


def _run(program: network.Program, blocks: Sequence[Block]) -> Iterator[Rows]:
    came = [blocks[index] for index in range(program.inputs)]
    length, dtype = came[0].size, _comparable(came[0].dtype)
    scratch = [np.empty(min(_STRIP, length), dtype) for _ in range(program.registers - program.inputs)]
    for begin in range(0, length, _STRIP):
        strip = slice(begin, min(begin + _STRIP, length))
        rows = [block[strip].astype(dtype, copy=False) for block in came]
        rows += [row[: strip.stop - strip.start] for row in scratch]
        for larger, first, second, into in program.steps:
            (np.maximum if larger else np.minimum)(rows[first], rows[second], out=rows[into])
        yield strip, [rows[output] for output in program.outputs]


def _sorted(blocks: Sequence[Block], low: int, high: int) -> Iterator[Rows]:
    came = [blocks[index] for index in range(len(blocks))]
    for begin in range(0, came[0].size, _COLUMNS):
        strip = slice(begin, min(begin + _COLUMNS, came[0].size))
        columns = np.stack([block[strip] for block in came], axis=1)
        columns.sort(axis=1)
        yield strip, list(columns[:, low:high].T)


def _comparable(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Float16 is compared as float32, which holds all of it: processors compare that in one instruction."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype
