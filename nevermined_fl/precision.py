"""Precision: files of models, and files of the changes between them, block by block.

What a change is, and how it rounds, says ``codecs.delta``; here it is applied to whole files, in memory that does not grow
with the model. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.codecs.blocks import Piece, pieces
from nevermined_fl.digests import BLAKE3, digest_file
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import BLOCK, atomic_file, digest_of
from nevermined_fl.spool import check_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nevermined_fl.codecs.schema import TensorSchema

    Block = np.ndarray[Any, Any]

__all__ = ["Change", "apply_change", "encode_change", "extend", "pread"]

_COUNT = 64 * 1024
"""Numbers per block: a multiple of the groups that share a scale, and small enough for the processor's cache."""


@dataclass(frozen=True, slots=True)
class Change:
    """Digests of the files that a change was written to."""

    change: str
    residual: str


def encode_change(
    model: Path,
    updated: Path,
    *,
    residual_in: Path | None,
    residual_out: Path,
    into: Path,
    schema: Sequence[TensorSchema],
    precision: str,
) -> Change:
    """Write what makes about ``updated`` of ``model``, and what rounding left out of it.

    Law: the change as it is decoded, plus ``residual_out``, is ``updated - model + residual_in``, but for one float32
    rounding.

    Args:
        model: what the other side has.
        updated: what it should get.
        residual_in: what the last change left out; None before the first.
        residual_out: where that of this one goes.
        into: where the change goes.
        schema: of both models.
        precision: the plan's, not ``f32``.
    """
    layout = delta.Layout(schema, precision)
    left = delta.residual_schema(schema)
    start = len(safetensors.header_bytes(left))
    hasher = hashlib.sha256()
    with ExitStack() as stack:
        before, after = stack.enter_context(model.open("rb")), stack.enter_context(updated.open("rb"))
        kept = None if residual_in is None else stack.enter_context(residual_in.open("rb"))
        if kept is not None:
            check_header(kept.fileno(), left)
        residual = stack.enter_context(atomic_file(residual_out))
        change = stack.enter_context(atomic_file(into))
        change.write(safetensors.header_bytes(layout.schema))
        _append(residual, hasher, safetensors.header_bytes(left))
        for piece in pieces(schema, _COUNT):
            last = None if kept is None else pread(kept, start + 4 * piece.first, 4 * piece.count, "F32")
            encoded, rest = delta.encode(_block(before, piece), _block(after, piece), last, precision)
            change.seek(layout.changes(piece)[0])
            change.write(encoded.numbers.data)
            if precision == "int8":
                change.seek(layout.scales(piece)[0])
                change.write(encoded.scales.data)
            _append(residual, hasher, rest.data)
    return Change(digest_file(into, BLAKE3), digest_of(hasher))


def apply_change(model: Path, change: Path, into: Path, schema: Sequence[TensorSchema], precision: str) -> str:
    """Write the model that a change makes of ``model``; its digest.

    Raises:
        DecodeError: the change is of another schema or size, or holds what no honest one does.
    """
    layout = delta.Layout(schema, precision)
    hasher = hashlib.sha256()
    with model.open("rb") as before, change.open("rb") as changes, atomic_file(into) as after:
        check_header(changes.fileno(), layout.schema)
        size, wanted = os.fstat(changes.fileno()).st_size, safetensors.file_size(layout.schema)
        if size != wanted:
            raise DecodeError(f"a change of this plan has {wanted} bytes, not {size}", code="size")
        _append(after, hasher, safetensors.header_bytes(schema))
        for piece in pieces(schema, _COUNT):
            decoded = delta.decode(_encoded(changes, layout, piece), precision)
            _append(after, hasher, delta.apply(_block(before, piece), decoded).view(np.uint8).data)
    return digest_of(hasher)


def extend(model: Path, into: Path, schema: Sequence[TensorSchema], carried: Sequence[TensorSchema]) -> None:
    """Write ``model`` with the tensors of ``carried`` that it has not: as zeros, where a strategy begins."""
    found = {e.name: e for e in _entries(schema)}
    header = len(safetensors.header_bytes(schema))
    with model.open("rb") as source, atomic_file(into) as file:
        file.write(safetensors.header_bytes(carried))
        file.truncate(safetensors.file_size(carried))
        for entry in _entries(carried):
            position, own = file.tell(), found.get(entry.name)
            if own is not None:
                source.seek(header + own.begin)
                _copy(source, file, own.end - own.begin)
            file.seek(position + entry.end - entry.begin)


def pread(file: IO[bytes], position: int, size: int, dtype: str) -> Block:
    """Numbers of a file, in a buffer of their own. Raises DecodeError when it ends before them."""
    buffer = bytearray(size)
    if os.preadv(file.fileno(), [buffer], position) != size:
        raise DecodeError("the file is shorter than its header says", code="truncated")
    return safetensors.as_array(memoryview(buffer), dtype)


def _block(file: IO[bytes], piece: Piece) -> Block:
    return pread(file, piece.position, piece.size(), piece.dtype)


def _encoded(file: IO[bytes], layout: delta.Layout, piece: Piece) -> delta.Encoded:
    """A block of changes as a peer sent it: finite, and scales not below 0."""
    begin, end = layout.changes(piece)
    numbers = pread(file, begin, end - begin, layout.dtype)
    begin, end = layout.scales(piece)
    scales = pread(file, begin, end - begin, "F32")
    is_whole = np.isfinite(scales).all() and not (scales < 0).any()
    if not is_whole or (layout.dtype != "I8" and not np.isfinite(safetensors.peak(numbers, layout.dtype))):
        raise DecodeError("the change holds a number that is not finite, or a scale below 0", code="not_finite")
    return delta.Encoded(numbers, scales)


def _entries(schema: Sequence[TensorSchema]) -> tuple[safetensors.Entry, ...]:
    return safetensors.Header.parse(safetensors.header_bytes(schema)).entries


def _append(file: IO[bytes], hasher: Any, block: bytes | memoryview) -> None:
    file.write(block)
    hasher.update(block)


def _copy(source: IO[bytes], into: IO[bytes], size: int) -> None:
    while size:
        block = source.read(min(BLOCK, size))
        if not block:
            raise DecodeError("the file is shorter than its header says", code="truncated")
        into.write(block)
        size -= len(block)
