"""Control: SCAFFOLD's control variate of this participant, ``c_i``: all the changes of it that ever counted, added up.

The update carries the change, so that the coordinator can add up everybody's; the sum stays here. Its file has the
model's tensors.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.files import BLOCK, atomic_file, digest_of
from nevermined_fl.precision import pread
from nevermined_fl.spool import check_header
from nevermined_fl.trainers.correction import CONTROL

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session import Plan

__all__ = ["add_change"]


def add_change(control: Path | None, update: Path, into: Path, plan: Plan) -> str:
    """Write ``control``, zeros when None, plus the change that ``update`` carries; its digest."""
    changes = {entry.name: entry for entry in _header(plan.carried()).entries}
    schema = tuple(TensorSchema(t.name, changes[f"{CONTROL}/{t.name}"].dtype, t.shape) for t in plan.schema)
    header, start = _header(schema), _header(plan.carried()).data_offset
    hasher = hashlib.sha256(safetensors.header_bytes(schema))
    with ExitStack() as stack:
        source = stack.enter_context(update.open("rb"))
        before = None if control is None else stack.enter_context(control.open("rb"))
        if before is not None:
            check_header(before.fileno(), schema)
        after = stack.enter_context(atomic_file(into))
        after.write(safetensors.header_bytes(schema))
        for entry in header.entries:
            from_ = start + changes[f"{CONTROL}/{entry.name}"].begin
            for offset in range(0, entry.end - entry.begin, BLOCK):
                size = min(BLOCK, entry.end - entry.begin - offset)
                total = pread(source, from_ + offset, size, entry.dtype)
                if before is not None:
                    total = np.add(total, pread(before, after.tell(), size, entry.dtype), out=total)
                after.write(total.data)
                hasher.update(total.data)
    return digest_of(hasher)


def _header(schema: tuple[TensorSchema, ...]) -> safetensors.Header:
    return safetensors.Header.parse(safetensors.header_bytes(schema))
