"""Inspection: is every number one that may come, and which is the largest? Asked of bytes as they come, in pieces of any length.

Numbers are finite, and what scales changes in ``I8`` is not below 0: honest ones never are, and sizes are told by scales.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Inspection", "check_finite", "check_header", "scan"]

_BLOCK = 256 * 1024


class Inspection:
    """Looks at the numbers of one file of ``schema``, from its first byte on."""

    def __init__(self, schema: Sequence[TensorSchema]) -> None:
        self._runs = list(safetensors.runs(schema))
        self._scaled = any(run.dtype == "I8" for run in self._runs)
        self._position = 0
        self._begun = b""
        self._peaks: dict[str, float] = {}

    def feed(self, block: memoryview) -> None:
        """The next bytes. Raises DecodeError when a number among them is not finite, or a scale below 0."""
        while block and self._runs:
            run = self._runs[0]
            if self._position < run.begin:
                taken = min(len(block), run.begin - self._position)
            else:
                taken = self._look(run.dtype, block[: run.end - self._position])
            self._position, block = self._position + taken, block[taken:]
            if self._position == run.end:
                self._runs.pop(0)

    def peak(self) -> float:
        """No number that the file means is larger in absolute value.

        Changes in ``I8`` are multiples of a scale, which is an ``F32`` of the same file.
        """
        peaks = dict(self._peaks)
        steps = peaks.pop("I8", None)
        largest = max(peaks.values(), default=0.0)
        return largest if steps is None else largest * steps

    def _look(self, dtype: str, block: memoryview) -> int:
        """Whole numbers, and at most the beginning of one; how many bytes were taken."""
        width = safetensors.NUMPY_DTYPES[dtype].itemsize
        if self._begun:
            piece = bytes(block[: width - len(self._begun)])
            self._begun += piece
            if len(self._begun) == width:
                self._judge(dtype, self._begun)
                self._begun = b""
            return len(piece)
        whole = len(block) - len(block) % width
        self._judge(dtype, block[:whole])
        self._begun = bytes(block[whole:])
        return len(block)

    def _judge(self, dtype: str, block: bytes | memoryview) -> None:
        numbers = safetensors.as_array(block, dtype)
        peak = safetensors.peak(numbers, dtype)
        if not math.isfinite(peak):
            raise DecodeError("the update holds a number that is not finite", code="not_finite")
        if self._scaled and dtype == "F32" and (numbers < 0).any():
            raise DecodeError("the update holds a scale below 0", code="not_finite")
        self._peaks[dtype] = max(self._peaks.get(dtype, 0.0), peak)


def check_header(handle: int, schema: Sequence[TensorSchema]) -> None:
    """Refuse a file whose header is not byte for byte the schema's: what could differ could also carry a message."""
    expected = safetensors.header_bytes(schema)
    found = os.pread(handle, len(expected), 0)
    if found == expected:
        return
    safetensors.check(safetensors.Header.parse(found), schema)  # says which tensor is wrong, where it can
    raise DecodeError("the header is not the plan's", code="schema")


def scan(handle: int, schema: Sequence[TensorSchema]) -> float:
    """The peak of a file, read through one pooled block. Raises DecodeError: not finite, or shorter than its schema."""
    inspection, block = Inspection(schema), memoryview(bytearray(_BLOCK))
    position, size = 0, safetensors.file_size(schema)
    while position < size:
        count = os.preadv(handle, [block[: min(_BLOCK, size - position)]], position)
        if not count:
            raise DecodeError("the file is shorter than its header says", code="truncated")
        inspection.feed(block[:count])
        position += count
    return inspection.peak()


def check_finite(handle: int, schema: Sequence[TensorSchema]) -> None:
    """Refuse a file that holds a NaN, an infinity, or a scale below 0."""
    scan(handle, schema)
