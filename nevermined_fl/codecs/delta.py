"""Changes between two models: which numbers cross the wire instead of whole weights, and which model do they make?

A change file holds one flat tensor: the changes of all numbers of the model, in the order of the model's file. In
``int8`` a second one holds one scale per 1024 of them; groups start anew with each dtype of the model.

Rule 1: both sides get the same bits: everything is elementwise in float32 (float64 for F64 models), and ``apply`` is the
only way from a model and a change to a model. Rule 2: whatever finite numbers a peer sends, the result is finite. Rule 3:
what rounding took away is kept as a residual and sent with the next change (error feedback: Seide et al. 2014,
"1-bit stochastic gradient descent"; Karimireddy et al. 2019, arXiv:1901.09847).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.codecs.blocks import count_of
from nevermined_fl.codecs.schema import TensorSchema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.codecs.blocks import Piece

    Block = np.ndarray[Any, Any]

__all__ = [
    "GROUP",
    "PRECISIONS",
    "RESIDUAL",
    "Encoded",
    "Layout",
    "apply",
    "decode",
    "encode",
    "peak",
    "residual_schema",
    "wire_schema",
]

GROUP = 1024
"""Numbers that share a scale in ``int8``. Blocks begin at multiples of it."""
PRECISIONS = {"f32": "", "f16": "F16", "bf16": "BF16", "int8": "I8"}
"""A plan's precision -> the dtype of changes; whole weights travel where there is none."""

RESIDUAL = "#residual"
_CHANGES, _SCALES = "#changes", "#scales"  # no plan may name a tensor like that
_LARGEST = {"F16": np.float32(65504.0), "BF16": np.uint32(0x7F7F0000).view(np.float32)}
_SMALLEST = np.finfo(np.float32).tiny


@dataclass(frozen=True, slots=True)
class Encoded:
    """A block of changes as it crosses the wire: ``numbers`` in the wire's dtype (BF16 as its bits), ``scales`` or none."""

    numbers: Block
    scales: Block


def wire_schema(schema: Sequence[TensorSchema], precision: str) -> tuple[TensorSchema, ...]:
    """The schema of the files that cross the wire: the model's own, or that of its changes."""
    if precision == "f32":
        return tuple(schema)
    changes = TensorSchema(_CHANGES, PRECISIONS[precision], (count_of(schema),))
    if precision != "int8":
        return (changes,)
    groups = sum(_groups(count) for _, count in _run_counts(schema))
    return (TensorSchema(_SCALES, "F32", (groups,)), changes)


def residual_schema(schema: Sequence[TensorSchema]) -> tuple[TensorSchema, ...]:
    """The schema of a file of residuals: one flat F32 tensor in the order of the model's file."""
    return (TensorSchema(RESIDUAL, "F32", (count_of(schema),)),)


class Layout:
    """Where a piece of the model is in a change file.

    Args:
        schema: the model's.
        precision: of the plan, not ``f32``.
    """

    def __init__(self, schema: Sequence[TensorSchema], precision: str) -> None:
        self.schema = wire_schema(schema, precision)
        self.dtype = PRECISIONS[precision]
        self._width = safetensors.NUMPY_DTYPES[self.dtype].itemsize
        runs = {run.dtype: run.begin for run in safetensors.runs(self.schema)}
        self._changes, self._scales = runs[self.dtype], runs.get("F32")
        self._run_starts: dict[str, tuple[int, int]] = {}  # first number and first group of each of the model's dtypes
        first = group = 0
        for dtype, count in _run_counts(schema):
            self._run_starts[dtype] = (first, group)
            first, group = first + count, group + _groups(count)

    def changes(self, piece: Piece) -> tuple[int, int]:
        """Where the changes of a piece begin and end."""
        begin = self._changes + piece.first * self._width
        return begin, begin + piece.count * self._width

    def scales(self, piece: Piece) -> tuple[int, int]:
        """Where the scales of a piece begin and end; nowhere but in ``int8``. Pieces begin at multiples of GROUP."""
        if self._scales is None:
            return 0, 0
        first, group = self._run_starts[piece.dtype]
        begin = self._scales + 4 * (group + (piece.first - first) // GROUP)
        return begin, begin + 4 * _groups(piece.count)


def encode(previous: Block, updated: Block, residual: Block | None, precision: str) -> tuple[Encoded, Block]:
    """What to send so that ``previous`` becomes about ``updated``, and what that leaves for the next time.

    Shapes: flat, of one length; ``previous`` and ``updated`` of the model's dtype, ``residual`` float32.
    Rounding: to nearest even; what is too large for the wire's dtype is cut to its largest number, and stays in the
    residual.
    """
    wide = np.float64 if previous.dtype == np.float64 else np.float32
    with np.errstate(over="ignore"):
        change = np.subtract(updated, previous, dtype=wide)
        if residual is not None:
            change += residual
        change = _finite(change.astype(np.float32, copy=False))
        encoded = _encode_int8(change) if precision == "int8" else _encode_half(change, PRECISIONS[precision])
    return encoded, _finite(np.subtract(change, decode(encoded, precision), out=change))


def decode(encoded: Encoded, precision: str) -> Block:
    """The changes as float32. They are finite if the scales, or the half precision numbers, are."""
    numbers = encoded.numbers
    if precision == "bf16":
        return np.left_shift(numbers, 16, dtype=np.uint32).view(np.float32)
    if precision == "f16":
        return numbers.astype(np.float32)
    changes = np.empty(numbers.size, np.float32)
    with np.errstate(over="ignore"):
        for part, groups in _grouped(numbers.size):
            scales = encoded.scales[groups, None]
            rows = (scales.shape[0], -1)
            np.multiply(numbers[part].reshape(rows), scales, out=changes[part].reshape(rows))
    return _finite(changes)


def peak(encoded: Encoded) -> float:
    """The largest absolute value of a block of ``int8`` changes, as ``decode`` rounds them; scales may have any sign."""
    found = 0.0
    for part, groups in _grouped(encoded.numbers.size):
        rows = encoded.numbers[part].reshape(groups.stop - groups.start, -1)
        # -128 has no absolute value in int8.
        steps = np.maximum(rows.max(axis=1), -rows.min(axis=1).astype(np.float32))
        with np.errstate(over="ignore"):
            found = max(found, float((steps * np.abs(encoded.scales[groups])).max()))
    return min(found, float(np.finfo(np.float32).max))


def apply(previous: Block, changes: Block) -> Block:
    """The model that changes make of a model, in its dtype; what would overflow is cut to the largest number."""
    wide = np.float64 if previous.dtype == np.float64 else np.float32
    with np.errstate(over="ignore"):
        after = np.add(previous, changes, dtype=wide).astype(previous.dtype, copy=False)
    return _finite(after)


def _encode_half(change: Block, dtype: str) -> Encoded:
    cut = np.clip(change, -_LARGEST[dtype], _LARGEST[dtype])
    none = np.empty(0, np.float32)
    if dtype == "F16":
        return Encoded(cut.astype(np.float16), none)
    bits = cut.view(np.uint32)
    # To nearest even: add just under half of the part that is cut off, and the last bit that stays.
    bits += 0x7FFF + ((bits >> 16) & 1)
    return Encoded((bits >> 16).astype(np.uint16), none)


def _encode_int8(change: Block) -> Encoded:
    numbers = np.empty(change.size, np.int8)
    scales = np.empty(_groups(change.size), np.float32)
    for part, groups in _grouped(change.size):
        rows = change[part].reshape(groups.stop - groups.start, -1)
        scale = np.abs(rows).max(axis=1) / np.float32(127)
        scale[scale < _SMALLEST] = 0.0  # a division by less would lose its own digits; the residual keeps such a change
        divided = np.divide(rows, scale[:, None], out=np.zeros_like(rows), where=scale[:, None] > 0)
        np.clip(np.rint(divided, out=divided), -127, 127, out=divided)
        numbers[part].reshape(rows.shape)[...] = divided
        scales[groups] = scale
    return Encoded(numbers, scales)


def _finite(block: Block) -> Block:
    """In place: infinities become the largest number."""
    largest = np.finfo(block.dtype).max
    return np.clip(block, -largest, largest, out=block)


def _grouped(count: int) -> list[tuple[slice, slice]]:
    """Numbers and their groups: the whole groups at once, then the one that is left."""
    whole = count // GROUP
    parts = [(slice(0, whole * GROUP), slice(0, whole))] if whole else []
    if count % GROUP:
        parts.append((slice(whole * GROUP, count), slice(whole, whole + 1)))
    return parts


def _groups(count: int) -> int:
    return -(-count // GROUP)


def _run_counts(schema: Sequence[TensorSchema]) -> list[tuple[str, int]]:
    return [
        (run.dtype, (run.end - run.begin) // safetensors.NUMPY_DTYPES[run.dtype].itemsize)
        for run in safetensors.runs(schema)
    ]
