"""The gate: what of a trainer's answer may leave the data provider?

Rule 1: the buyer's process is hostile; its frames, files and file names prove nothing. Rule 2: what may leave is an
update that is exactly the plan's schema, an honest number of examples, and the plan's declared scalars, rounded. Rule 3:
what is refused is said in words of ours, never in the buyer's.
"""

from __future__ import annotations

import builtins
import os
import stat
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.digests import SHA256, hasher
from nevermined_fl.errors import DecodeError, TrainerError
from nevermined_fl.files import BLOCK, atomic_file, digest_of
from nevermined_fl.spool import check_finite, check_header

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session.plan import Plan, TensorSchema

__all__ = ["REFUSED", "copy_file", "copy_update", "judge_examples", "judge_failure", "judge_metrics"]

REFUSED = "Refused"
"""The kind of a TrainerError that the gate itself raises."""

_KNOWN = {
    "NotOneTrainer": "the algorithm file should have exactly one Trainer subclass",
    "NoStepSize": "the strategy needs to know the step of an Update: the number of steps times the learning rate",
}
"""What our own half of the child raises, by the exception's name."""

_KINDS = frozenset(
    name
    for module in (builtins, np.exceptions, np.linalg)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)


def copy_update(source: Path, into: Path, schema: tuple[TensorSchema, ...], kind: str = SHA256) -> str:
    """Copy an update out of the scratch folder, checking the copy; returns its digest, of that kind."""
    try:
        return copy_file(source, into, safetensors.file_size(schema), schema, kind)
    except DecodeError as error:
        text = "the update should have exactly the tensors of initialize(): names, dtypes and shapes, all finite"
        raise _refused(text) from error


def copy_file(
    source: Path, into: Path, limit: int, schema: tuple[TensorSchema, ...] | None = None, kind: str = SHA256
) -> str:
    """Copy a regular file of at most ``limit`` bytes that a hostile process wrote; returns the copy's digest."""
    found = hasher(kind)
    block = memoryview(bytearray(BLOCK))
    handle = _open_regular(source)
    try:
        with atomic_file(into) as file:
            while count := os.readv(handle, [block]):
                if file.tell() + count > limit:
                    raise DecodeError(f"more than {limit} bytes", code="size")
                found.update(block[:count])
                file.write(block[:count])
            if schema is not None:
                file.flush()
                if file.tell() != limit:
                    raise DecodeError(f"{file.tell()} bytes instead of {limit}", code="size")
                check_header(file.fileno(), schema)
                check_finite(file.fileno(), schema)
    finally:
        os.close(handle)
    return digest_of(found)


def judge_examples(value: Any, plan: Plan, rows: int | None) -> int:
    """An integer from 1 to the dataset's number of rows, where that is known; of a larger one than the plan counts, that."""
    if type(value) is not int or value < 1 or (rows is not None and value > rows):
        raise _refused("examples should be an integer from 1 to the number of rows of the dataset")
    # The coordinator would count no more either; the exact number could only tell something.
    return min(value, plan.max_weight)


def judge_metrics(values: Any, plan: Plan) -> dict[str, float]:
    """Declared names alone, each in its range and rounded to its digits."""
    if not isinstance(values, dict):
        raise _refused("metrics should be scalars by name")
    declared = {metric.name: metric for metric in plan.metrics}
    judged = {}
    for name, value in sorted(values.items()):
        metric = declared.get(name)
        if metric is None:
            raise _refused("a metric is not declared in the plan")
        if type(value) not in {int, float} or not metric.low <= value <= metric.high:
            raise _refused(f"metric {metric.name} should be a number from {metric.low:g} to {metric.high:g}")
        judged[name] = round(float(value), metric.digits)
    return judged


def judge_failure(body: Any, lines: int) -> TrainerError:
    """What may be said of an exception in the buyer's code: a well-known type's name, and a line that its file has."""
    found = body if isinstance(body, dict) else {}
    kind, line = found.get("kind"), found.get("line")
    if isinstance(kind, str) and kind in _KNOWN:
        return _refused(_KNOWN[kind])
    kind = kind if isinstance(kind, str) and kind in _KINDS else "Exception"
    line = line if type(line) is int and 0 <= line <= lines else 0
    where = f"in line {line}" if line else "outside of its own lines"
    return TrainerError(f"the algorithm raised {kind} {where}", kind=kind, line=line)


def _refused(text: str) -> TrainerError:
    return TrainerError(text, kind=REFUSED)


def _open_regular(path: Path) -> int:
    """No link, no pipe, no device: the name may have been replaced by anything."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise DecodeError("no file came") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DecodeError("what came is no regular file")
    return handle
