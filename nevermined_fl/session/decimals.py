"""Decimals: numbers as they were written, not their nearest floats, of which ceil(0.07 * 100) would be 8."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["exact"]


def exact(number: float) -> Fraction:
    """The shortest decimal that is read as this float; sums and comparisons of such have no rounding."""
    return Fraction(repr(float(number)))
