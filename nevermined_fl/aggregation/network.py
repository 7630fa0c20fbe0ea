"""Sorting networks as programs over blocks: which minima and maxima must be taken, and where do they go?

A comparison of two blocks is one ``minimum`` and one ``maximum``, many times faster than sorting column by column. What
nobody asks for is left out. Sources: Batcher 1968, "Sorting networks and their applications" (Knuth, The Art of Computer
Programming 3, section 5.2.2, algorithm M); forgetful selection, as in Devillard 1998, "Fast median search".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Program", "Step", "middle", "places"]

Step = tuple[bool, int, int, int]
"""Whether the larger is taken, the two registers that are compared, and the one that the result goes to."""


@dataclass(frozen=True, slots=True)
class Program:
    """Registers below ``inputs`` are the updates and are only read; the others, up to ``registers``, are for results."""

    inputs: int
    registers: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


@lru_cache(maxsize=64)
def places(count: int, low: int, high: int) -> Program:
    """The ``low``-th to ``high - 1``-th smallest of ``count`` values, in order."""
    return _program(count, _batcher(count), range(low, high))


@lru_cache(maxsize=64)
def middle(count: int) -> Program:
    """The middle value, or the two in the middle in any order; by the cheaper of the two ways."""
    wires = range((count - 1) // 2, count // 2 + 1)
    comparisons, left = _forgetful(count)
    return min(places(count, wires[0], wires[-1] + 1), _program(count, comparisons, left), key=lambda p: len(p.steps))


def _batcher(count: int) -> list[tuple[int, int]]:
    """Pairs of wires, the smaller value to the first; afterwards all are in order."""
    found: list[tuple[int, int]] = []
    merged = 1
    while merged < count:
        step = merged
        while step:
            for start in range(step % merged, count - step, 2 * step):
                wires = range(start, min(start + step, count - step))
                found += [(w, w + step) for w in wires if w // (2 * merged) == (w + step) // (2 * merged)]
            step //= 2
        merged *= 2
    return found


def _forgetful(count: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Of just over half of the values neither the least nor the greatest is in the middle: forget both, take in the next."""
    found: list[tuple[int, int]] = []
    wanted = 2 - count % 2
    seen = min(count, count // 2 + 2)
    active = list(range(seen))
    while len(active) > wanted:
        pairs = list(zip(active[::2], active[1::2], strict=False))
        odd = active[2 * len(pairs) :]
        least, *others = [small for small, _ in pairs] + odd
        greatest, *rest = [large for _, large in pairs] + odd
        found += [*pairs, *((least, other) for other in others), *((other, greatest) for other in rest)]
        active = [wire for wire in active if wire not in (least, greatest)]
        active += range(seen, min(seen + 1, count))
        seen += 1
    return found, active


def _program(count: int, comparisons: Sequence[tuple[int, int]], outputs: Iterable[int]) -> Program:
    """Leave out what no output depends on, and give every result a register that nobody reads any more."""
    where = list(range(count))  # the register that holds each wire
    free: list[int] = []
    registers = count
    steps: list[Step] = []
    for first, second, small, large in _needed(comparisons, outputs):
        before = where[first], where[second]
        free += [register for register in before if register >= count]
        taken = []
        if small:
            # Not into one of the two: the larger of them is still to be taken.
            register = next((r for r in free if not large or r not in before), registers)
            registers = max(registers, register + 1)
            steps.append((False, *before, register))
            taken.append(register)
            where[first] = register
        if large:
            register = next((r for r in free if r not in taken), registers)
            registers = max(registers, register + 1)
            steps.append((True, *before, register))
            taken.append(register)
            where[second] = register
        free = [register for register in free if register not in taken]
    return Program(count, registers, tuple(steps), tuple(where[wire] for wire in outputs))


def _needed(comparisons: Sequence[tuple[int, int]], outputs: Iterable[int]) -> list[tuple[int, int, bool, bool]]:
    needed = set(outputs)  # asked for membership alone, never iterated over
    found = []
    for first, second in reversed(comparisons):
        if first in needed or second in needed:
            found.append((first, second, first in needed, second in needed))
            needed |= {first, second}
    return found[::-1]
