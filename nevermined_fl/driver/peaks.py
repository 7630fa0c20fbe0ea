"""Peaks: of each update, a number that none of its numbers exceeds, so that integers can hold their sum.

Every bound must be near to what is summed, or an update whose change is small could coarsen everybody's unit: by what
travels beside the model, by a scale that multiplies nothing, or by a change that a small dtype cuts.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.codecs.blocks import Piece
    from nevermined_fl.driver.desk import Desk
    from nevermined_fl.driver.parts import Parts
    from nevermined_fl.driver.work import Work

    Block = np.ndarray[Any, Any]

__all__ = ["peak_before", "peaks_of"]


def peaks_of(work: Work, precision: str, given: Sequence[float | None], parts: Parts) -> dict[str, tuple[float, ...]]:
    """By kind, in the updates' order; ``given`` are those that are known."""
    known = [peak for peak in given if peak is not None]
    cuts = precision != "f32" and any(tensor.dtype == "F16" for tensor in work.schema)
    if cuts or len(parts.kinds) > 1:
        return _looked_for(work, len(given), parts)
    if precision == "int8":
        return {"": _of_changes(work, len(given))}
    if len(known) != len(given):
        return _looked_for(work, len(given), parts)
    if precision == "f32":
        return {"": tuple(known)}
    before = peak_before(work)
    return {"": tuple(_together(before, peak) for peak in known)}


def peak_before(work: Work) -> float:
    """The largest absolute value of the model before."""
    return max(work.each(lambda desk, piece: safetensors.peak(desk.before(piece), piece.dtype)))


def _looked_for(work: Work, count: int, parts: Parts) -> dict[str, tuple[float, ...]]:
    def look(desk: Desk, piece: Piece) -> Block:
        before = desk.before(piece)
        found = np.zeros((len(parts.kinds), count))
        for index in range(count):
            update = desk.update(index, piece, before)
            for part, kind in parts.of(piece):
                at = parts.kinds.index(kind), index
                found[at] = max(found[at], safetensors.peak(update[part], piece.dtype))
        return found

    peaks = np.max(list(work.each(look)), axis=0)
    return {kind: tuple(row.tolist()) for kind, row in zip(parts.kinds, peaks, strict=True)}


def _of_changes(work: Work, count: int) -> tuple[float, ...]:
    """The same for ``int8`` changes, without decoding them."""

    def look(desk: Desk, piece: Piece) -> Block:
        before = safetensors.peak(desk.before(piece), piece.dtype)
        return np.array([_together(before, desk.largest_change(index, piece)) for index in range(count)])

    return tuple(np.max(list(work.each(look)), axis=0).tolist())


def _together(before: float, change: float) -> float:
    """Rounding may make a sum larger than its terms, by less than a millionth; what overflows is cut."""
    return min((before + change) * (1 + 1e-6), sys.float_info.max)
