"""Distances: how far does an update move the model, and what travels beside it?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver.parts import Parts
from nevermined_fl.driver.work import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nevermined_fl.codecs.blocks import Piece
    from nevermined_fl.driver.desk import Desk
    from nevermined_fl.session import TensorSchema

    Block = np.ndarray[Any, Any]

__all__ = ["distance"]

_VANISHING = 1e-200
"""A sum of squares above it lost nothing that counts to those that are too small for float64."""


def distance(
    model: Path, update: Path, schema: Sequence[TensorSchema], precision: str = "f32", extras: Sequence[str] = ()
) -> dict[str, float]:
    """How far an update moves each kind of numbers, as an L2 norm; infinite if float64 does not hold it.

    For the model's own (``""``) that is the update minus the round's model. What travels beside it is a change already.
    """
    parts = Parts(schema, extras)

    def measure(desk: Desk, piece: Piece) -> list[tuple[str, float]]:
        before = desk.before(piece)
        update, found = desk.update(0, piece, before), []
        for part, kind in parts.of(piece):
            with np.errstate(over="ignore"):
                apart = np.subtract(update[part], 0 if kind else before[part], dtype=np.float64)
            found.append((kind, _norm(apart)))
        return found

    norms: dict[str, list[float]] = {kind: [] for kind in parts.kinds}
    with opened(schema, precision, model, [update], at_once=False) as work:
        for found in work.each(measure):
            for kind, norm in found:
                norms[kind].append(norm)
    return {kind: math.hypot(*found) for kind, found in norms.items()}


def _norm(changes: Block) -> float:
    """The L2 norm, also of numbers whose squares are too large or too small for float64."""
    with np.errstate(over="ignore", under="ignore"):
        squared = float(np.sum(np.square(changes)))
        if _VANISHING < squared < math.inf:
            return math.sqrt(squared)
        peak = safetensors.peak(changes, "F64")
        return peak * _norm(changes / peak) if 0 < peak < math.inf else peak
