"""The safetensors layout: which bytes are a model, and which model are these bytes?

Eight bytes little-endian header length, a JSON header, then the numbers. What is written here is byte for byte what the
``safetensors`` library writes: wide dtypes first, then names in order, header padded to eight bytes. So equal models are
equal bytes, and the numbers of one dtype lie side by side (``runs``), which is what a blockwise reader wants.

Rule 1: nothing is allocated before the sizes that a peer claims were checked. Rule 2: a header leaves no byte of the
body unclaimed and none claimed twice.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs.schema import DTYPES, WIRE_DTYPES, TensorSchema
from nevermined_fl.errors import DecodeError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "MAX_HEADER_BYTES",
    "NUMPY_DTYPES",
    "Entry",
    "Header",
    "Run",
    "as_array",
    "check",
    "dump",
    "entries",
    "file_size",
    "header_bytes",
    "header_length",
    "load",
    "peak",
    "runs",
    "schema_of",
]

MAX_HEADER_BYTES = 4 * 1024 * 1024  # 10000 tensors of a plan need less
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "BF16": np.dtype("<u2"),  # numpy has no such number: these are its bits
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
}
_NAMES = {NUMPY_DTYPES[name]: name for name in DTYPES}
_RANKS = {name: rank for rank, name in enumerate(WIRE_DTYPES)}
_MAX_RANK = 32  # numpy 1.x holds no more dimensions
_MAX_BYTES = 2**40


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file; ``begin`` and ``end`` are bytes counted from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers of one dtype side by side; ``begin`` and ``end`` are bytes counted from the start of the file."""

    dtype: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header: its tensors in the order of their bytes, and where the data starts."""

    entries: tuple[Entry, ...]
    data_offset: int
    metadata: tuple[tuple[str, str], ...] = ()

    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self.data_offset + (self.entries[-1].end if self.entries else 0)

    @classmethod
    def parse(cls, prefix: bytes) -> Header:
        """Parse the first bytes of a file: the length, the header and as much of the data as happens to be there.

        Raises:
            DecodeError: truncated, too long, not JSON, a name twice, a wrong dtype or shape, bytes that no tensor or
                two tensors claim.
        """
        length = header_length(prefix)
        raw = prefix[8 : 8 + length]
        if len(raw) < length:
            raise DecodeError(f"a header of {length} bytes was announced, {len(raw)} came")
        body = _parse_json(raw)
        metadata = _metadata(body.pop("__metadata__", {}))
        entries = sorted((_entry(name, value) for name, value in body.items()), key=lambda e: (e.begin, e.end))
        _refuse_gaps(entries)
        return cls(tuple(entries), 8 + length, metadata)


def header_length(prefix: bytes) -> int:
    """Length of the JSON header, from the first eight bytes of a file. Raises DecodeError when it cannot be right."""
    if len(prefix) < 8:
        raise DecodeError(f"a safetensors file starts with 8 bytes of length, {len(prefix)} came")
    length = int.from_bytes(prefix[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise DecodeError(f"header of {length} bytes; 2 to {MAX_HEADER_BYTES} are read", code="too_large")
    return length


def header_bytes(schema: Iterable[TensorSchema]) -> bytes:
    """Length and header of a model: the only header that ``check`` lets pass."""
    return _layout(tuple(schema)).header


def file_size(schema: Iterable[TensorSchema]) -> int:
    """Bytes of the file of any model with that schema."""
    return _layout(tuple(schema)).size


def runs(schema: Iterable[TensorSchema]) -> tuple[Run, ...]:
    """Where the numbers of each dtype lie, in the order of the file; at most one run per dtype."""
    return _layout(tuple(schema)).runs


def entries(schema: Iterable[TensorSchema]) -> tuple[Entry, ...]:
    """The tensors of a model's file, in the order of their bytes."""
    return _layout(tuple(schema)).entries


@dataclass(frozen=True, slots=True)
class _Layout:
    """What follows from a schema alone."""

    entries: tuple[Entry, ...]
    header: bytes
    size: int
    runs: tuple[Run, ...]


@lru_cache(maxsize=16)
def _layout(schema: tuple[TensorSchema, ...]) -> _Layout:
    """Kept, because a session has a few schemas and asks many times in each round."""
    there: list[Entry] = []
    sizes, begin = dict.fromkeys(WIRE_DTYPES, 0), 0
    for tensor in _ordered(schema):
        there.append(Entry(tensor.name, tensor.dtype, tensor.shape, begin, begin + tensor.size()))
        sizes[tensor.dtype] += tensor.size()
        begin = there[-1].end
    header = _header(there)
    offset, found = len(header), []
    for dtype, size in sizes.items():
        if size:
            found.append(Run(dtype, offset, offset + size))
        offset += size
    return _Layout(tuple(there), header, offset, tuple(found))


def _header(there: Iterable[Entry]) -> bytes:
    body = {e.name: {"dtype": e.dtype, "shape": list(e.shape), "data_offsets": [e.begin, e.end]} for e in there}
    raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def check(header: Header, schema: Sequence[TensorSchema]) -> None:
    """Refuse a header that is not exactly the schema's.

    No metadata, no other order and no other offsets either: whatever could differ could also carry a message.

    Raises:
        DecodeError: naming the first tensor that is missing, surplus or different.
    """
    expected = {tensor.name: tensor for tensor in schema}
    for entry in header.entries:
        if (tensor := expected.pop(entry.name, None)) is None:
            raise DecodeError(f"tensor {entry.name[:80]!r} is not in the plan's schema", code="schema")
        if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            came, wanted = f"{entry.dtype}{list(entry.shape)}", f"{tensor.dtype}{list(tensor.shape)}"
            raise DecodeError(f"tensor {entry.name!r} is {came}, expected {wanted}", code="schema")
    if expected:
        raise DecodeError(f"tensor {next(iter(expected))!r} is missing", code="schema")
    if header.metadata or header.data_offset != len(header_bytes(schema)):
        raise DecodeError("the header holds more than the plan's tensors", code="schema")
    if [entry.name for entry in header.entries] != [tensor.name for tensor in _ordered(schema)]:
        raise DecodeError("the tensors are not in canonical order", code="schema")


def schema_of(tensors: Mapping[str, np.ndarray[Any, Any]]) -> tuple[TensorSchema, ...]:
    """The schema of tensors at hand, in the order of the file. Raises LocalProtocolError for other dtypes."""
    schema = []
    for name, tensor in tensors.items():
        dtype = _NAMES.get(tensor.dtype.newbyteorder("<"))
        if dtype is None or name == "__metadata__":
            raise LocalProtocolError(f"tensor {name!r} of {tensor.dtype}: expected one of {', '.join(DTYPES)}")
        schema.append(TensorSchema(name, dtype, tuple(tensor.shape)))
    return tuple(_ordered(schema))


def dump(tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The bytes of a model."""
    schema = schema_of(tensors)
    bodies = [tensors[t.name].astype(NUMPY_DTYPES[t.dtype], copy=False).tobytes(order="C") for t in schema]
    return b"".join([header_bytes(schema), *bodies])


def load(raw: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The model of these bytes, as writable arrays. Raises DecodeError as Header.parse does, and for a wrong length."""
    header = Header.parse(raw)
    if len(raw) != header.file_size():
        raise DecodeError(f"the header describes a file of {header.file_size()} bytes, {len(raw)} came")
    data = memoryview(raw)[header.data_offset :]
    return {e.name: as_array(data[e.begin : e.end], e.dtype).reshape(e.shape).copy() for e in header.entries}


def as_array(block: bytes | memoryview, dtype: str) -> np.ndarray[Any, Any]:
    """A read-only flat view of some bytes of a run."""
    return np.frombuffer(block, dtype=NUMPY_DTYPES[dtype])


def peak(block: np.ndarray[Any, Any], dtype: str) -> float:
    """The largest absolute value of a run's block; infinite or NaN exactly when some number of it is not finite."""
    if not block.size:
        return 0.0
    if dtype == "BF16":
        # Without their sign, bits are in the order of what they mean; infinity and NaN come last.
        bits = np.bitwise_and(block, 0x7FFF).max().astype(np.uint32) << 16
        return float(bits.astype(np.uint32).view(np.float32))
    return max(abs(float(block.max())), abs(float(block.min())))  # both are NaN if one number is


def _ordered(schema: Iterable[TensorSchema]) -> list[TensorSchema]:
    return sorted(schema, key=lambda tensor: (_RANKS[tensor.dtype], tensor.name))


def _parse_json(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise DecodeError("the header is not a JSON object")
    try:
        body: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DecodeError("the header is not JSON") from error
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise DecodeError("the header holds a name twice")
    return body


def _metadata(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DecodeError("__metadata__ is not an object of strings")
    return tuple(sorted(value.items()))


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise DecodeError(f"tensor {name[:80]!r} should have dtype, shape and data_offsets alone")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIRE_DTYPES:
        raise DecodeError(f"tensor {name[:80]!r}: dtype should be one of {', '.join(WIRE_DTYPES)}")
    if not _are_counts(shape) or len(shape) > _MAX_RANK or not _are_counts(offsets) or len(offsets) != 2:
        raise DecodeError(f"tensor {name[:80]!r}: shape or offsets are not lists of sizes")
    begin, end = offsets
    if end - begin != math.prod(shape) * WIRE_DTYPES[dtype]:
        raise DecodeError(f"tensor {name[:80]!r}: {end - begin} bytes do not hold its shape")
    return Entry(name, dtype, tuple(shape), begin, end)


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_BYTES for n in value)


def _refuse_gaps(entries: list[Entry]) -> None:
    position = 0
    for entry in entries:
        if entry.begin != position:
            raise DecodeError(f"tensor {entry.name[:80]!r} starts at byte {entry.begin}, not {position}")
        position = entry.end
