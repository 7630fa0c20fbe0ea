"""Weighted sums and means: exact integers that may be added in any order, or float64 in the cohort's order.

Fixed point: each number times its weight is rounded once to an integer of unit ``2**-exponent``. Integers are added
exactly, so neither the order of updates nor how they are grouped changes a bit, partial sums merge by adding them, and
secure aggregation can mask them. The error of a mean is at most half a unit per update, and an eighth more where the product
has more than 53 bits and is rounded to them first; ``exponent`` says how small that is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nevermined_fl.errors import SessionFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["exponent", "integers", "mean", "real", "weighted_mean"]

_TERM_BITS = 51  # one term: what the rounding below can hold
_SUM_BITS = 62  # the sum of all
_LARGEST_EXPONENT = 900  # numbers below 2**-900 are zero; a weight of 2**53 times a unit's inverse stays finite
_MAY_OVERFLOW = _SUM_BITS - 1023  # with a finer unit, 2**62 of them and a weight of at least 1 make a float64
_LARGEST = float(np.finfo(np.float64).max)
_MAGIC = 1.5 * 2.0**52
_MAGIC_BITS = int(np.float64(_MAGIC).view(np.int64))


def exponent(peaks: Sequence[float], factors: Sequence[float]) -> int:
    """The finest unit, ``2**-exponent``, in which numbers up to ``peaks`` times ``factors``, and their sum, fit.

    Each update's own peak counts: who sends a huge number and is then clipped to little coarsens nobody's unit.

    Raises:
        SessionFailed: a peak is infinite, as that of a change between the two largest numbers is.
    """
    if not all(map(math.isfinite, peaks)):
        raise SessionFailed("the updates hold changes that float64 cannot")
    # frexp(x)[1] is the least n with x < 2**n; sums of exponents do not overflow where products would.
    sizes = [math.frexp(p)[1] + math.frexp(f)[1] for p, f in zip(peaks, factors, strict=True) if p and f]
    if not sizes:
        return 0
    together = _SUM_BITS - (len(sizes) - 1).bit_length()
    return min(min(_TERM_BITS, together) - max(sizes), _LARGEST_EXPONENT)


def integers(blocks: Sequence[Block], factors: Sequence[float], exponent: int, previous: Block | None = None) -> Block:
    """``sum(rint(factor * x * 2**exponent))`` as int64, exactly; of changes of ``previous``, if that is given.

    Law: permuting updates gives the same bits, and so does adding the integers of disjoint groups of them.
    """
    first = blocks[0]
    total = np.zeros(first.size, np.int64)
    term = np.empty(first.size, np.float64)
    count = 0
    for index, factor in enumerate(factors):
        if factor == 0:
            continue
        _times(blocks[index] if index else first, previous, math.ldexp(factor, exponent), term)
        # Added to 1.5 * 2**52 a number below 2**51 loses its fraction, rounded to nearest even, and the bits of what
        # comes out are an integer apart from those of 1.5 * 2**52. That is one pass over the block where rounding and
        # converting are two. What is too much in the sum is taken away at the end, modulo 2**64.
        term += _MAGIC
        total += term.view(np.int64)
        count += 1
    total -= _wrapped(count * _MAGIC_BITS)
    return total


def real(total: Block, weight: float, exponent: int) -> Block:
    """What integers stand for, divided by a weight: float64, rounded once more than the division itself.

    Terms that were rounded up may stand for a little more than the largest number, which is then what comes out.
    """
    with np.errstate(over="ignore"):
        found: Block = total / math.ldexp(weight, exponent)
    return np.clip(found, -_LARGEST, _LARGEST, out=found) if exponent < _MAY_OVERFLOW else found


def mean(
    blocks: Sequence[Block],
    factors: Sequence[float],
    weight: float,
    peaks: Sequence[float] | None,
    previous: Block | None = None,
) -> Block:
    """``sum(factor * x) / weight`` in float64; factors >= 0. Exact sums if ``peaks`` are given.

    Of changes of ``previous``, in float64, if that is given; ``peaks`` are then theirs. Where nobody moved it is 0.
    """
    if peaks is not None:
        unit = exponent(peaks, factors)
        return real(integers(blocks, factors, unit, previous), weight, unit)
    first = blocks[0]
    total = np.zeros(first.shape, np.float64)
    term = np.empty(first.shape, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, factor in enumerate(factors):
            if factor != 0:
                total += _times(blocks[index] if index else first, previous, float(factor), term)
        total /= weight
    return total


def weighted_mean(
    blocks: Sequence[Block], weights: Sequence[float], peaks: Sequence[float] | None, previous: Block | None = None
) -> Block:
    """``sum(w * x) / sum(w)``, see ``mean``. In float64, products stay exact for F32 and F16 below 2^29 examples."""
    return mean(blocks, weights, math.fsum(weights), peaks, previous)


def _times(block: Block, previous: Block | None, factor: float, into: Block) -> Block:
    """In steps: numpy's loop that converts while it multiplies is slower."""
    np.copyto(into, block)
    if previous is not None:
        np.subtract(into, previous, out=into)
    np.multiply(into, factor, out=into)
    return into


def _wrapped(number: int) -> np.int64:
    """A whole number modulo 2**64."""
    return np.int64((number + 2**63) % 2**64 - 2**63)
