"""The spool: updates on disk, from the first byte to the digest that names them.

Rule 1: a file of another size than the plan's schema makes is refused before a byte of it is stored. Rule 2: a file
without ``.part`` was verified whole: digest, header, every number finite. A participant has at most one update per round
on disk; a new one drops the old.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Sink", "Spool", "check_finite", "check_header"]

_BLOCK = 1 << 20


class Spool:
    """The updates of one session in one folder."""

    def __init__(self, folder: Path, schema: Sequence[TensorSchema]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = tuple(schema)
        self._sinks: dict[Path, Sink] = {}
        self.update_size = safetensors.file_size(self._schema)

    def open(self, participant: str, round_number: int, digest: str, size: int) -> Sink:
        """Start an upload or go on with it; an earlier sink of the same update is closed.

        Raises:
            DecodeError: ``size`` is not that of an update of this plan, or the digest is no digest.
        """
        if size != self.update_size:
            raise DecodeError(f"an update of this plan has {self.update_size} bytes, not {size}", code="size")
        path = self.path(participant, round_number, digest)
        for other in self._of(participant, round_number):
            if not other.name.startswith(path.name):
                self._forget(other)
        sink = self._sinks[path] = Sink(path, digest, self._schema, self._sinks.get(path))
        return sink

    def has(self, participant: str, round_number: int, digest: str) -> bool:
        """Whether that update is here, verified."""
        return self.path(participant, round_number, digest).exists()

    def path(self, participant: str, round_number: int, digest: str) -> Path:
        """Where that update is, or would be."""
        kind, _, value = digest.partition(":")
        if kind != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise DecodeError("a digest is sha256:<64 hex>")
        return self._folder / f"{_stem(participant, round_number)}{value}"

    def discard(self, participant: str, round_number: int, digest: str) -> None:
        """Drop one update, whole or partial."""
        path = self.path(participant, round_number, digest)
        self._forget(path.with_suffix(".part"))
        self._forget(path)

    def clear(self, round_number: int) -> None:
        """Drop the updates of this round and of earlier ones."""
        for path in {*self._folder.iterdir(), *self._sinks}:
            if int(path.name.partition("-")[0]) <= round_number:
                self._forget(path)

    def close(self) -> None:
        """Close every file; what came stays."""
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()

    def _of(self, participant: str, round_number: int) -> list[Path]:
        """Its files, and its sinks that have no file yet: asking opens one, and a peer may ask for many digests."""
        stem = _stem(participant, round_number)
        return [*self._folder.glob(f"{stem}*"), *(path for path in self._sinks if path.name.startswith(stem))]

    def _forget(self, path: Path) -> None:
        if (sink := self._sinks.pop(path.with_suffix(""), None)) is not None:
            sink.close()
        path.unlink(missing_ok=True)


class Sink:
    """One update on its way in. Calls may come from any thread; what comes after ``close`` is refused."""

    def __init__(self, path: Path, digest: str, schema: Sequence[TensorSchema], previous: Sink | None = None) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._digest = digest
        self._schema = schema
        self._header = safetensors.header_bytes(schema)
        self._size = safetensors.file_size(schema)
        self._lock = threading.Lock()
        self._done = path.exists()
        self._closed = False
        self._handle: int
        self._hasher: Any
        self._handle, self._hasher = previous.take() if previous else (-1, None)
        self._offset = self._size if self._done else _size(self._part)

    @property
    def offset(self) -> int:
        """Bytes received so far."""
        return self._offset

    def write(self, block: bytes | memoryview) -> None:
        """Append a block.

        Raises:
            DecodeError: more than an update has, or a header that is not the plan's.
            RemoteProtocolError: the same update is being uploaded anew.
        """
        with self._lock:
            self._refuse_closed()
            if self._offset + len(block) > self._size:
                raise DecodeError(f"an update of this plan has {self._size} bytes, more came", code="size")
            self._open()
            _write_all(self._handle, block)
            self._hasher.update(block)
            before, self._offset = self._offset, self._offset + len(block)
            if before < len(self._header) <= self._offset:
                self._refuse_header()

    def commit(self) -> None:
        """Verify what came and keep it; what is wrong is dropped, what is short stays for a resumed upload."""
        with self._lock:
            self._refuse_closed()
            if self._done:
                return
            if self._offset < self._size:
                raise DecodeError(f"{self._offset} of {self._size} bytes came", code="truncated")
            self._open()
            try:
                if self._hasher.hexdigest() != self._digest.partition(":")[2]:
                    raise DecodeError("the update is not what its digest names", code="digest")
                check_header(self._handle, self._schema)
                check_finite(self._handle, self._schema)
            except DecodeError:
                self._drop()
                raise
            self._release()
            self._part.replace(self._path)
            self._done = True

    def close(self) -> None:
        """Refuse what still comes; bytes that came stay."""
        with self._lock:
            self._closed = True
            self._release()

    def take(self) -> tuple[int, Any]:
        """Close, and leave the open file and its running digest to the sink that goes on."""
        with self._lock:
            taken = self._handle, self._hasher
            self._handle, self._closed = -1, True
            return taken

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RemoteProtocolError("this upload was started anew", code="superseded")

    def _refuse_header(self) -> None:
        try:
            check_header(self._handle, self._schema)
        except DecodeError:
            self._drop()
            raise

    def _open(self) -> None:
        if self._handle >= 0:
            return
        # After a restart the running digest is gone: what came before is read again.
        self._handle = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._handle, self._offset)
        self._hasher = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK))
        while count := os.readv(self._handle, [block]):
            self._hasher.update(block[:count])

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def _drop(self) -> None:
        self._release()
        self._part.unlink(missing_ok=True)
        self._offset = 0


def check_header(handle: int, schema: Sequence[TensorSchema]) -> None:
    """Refuse a file whose header is not byte for byte the schema's: what could differ could also carry a message."""
    expected = safetensors.header_bytes(schema)
    found = os.pread(handle, len(expected), 0)
    if found == expected:
        return
    safetensors.check(safetensors.Header.parse(found), schema)  # says which tensor is wrong, where it can
    raise DecodeError("the header is not the plan's", code="schema")


def check_finite(handle: int, schema: Sequence[TensorSchema]) -> None:
    """Refuse a file that holds a NaN or an infinity, reading it through one pooled block."""
    block = memoryview(bytearray(_BLOCK))
    for run in safetensors.runs(schema):
        position = run.begin
        while position < run.end:
            part = block[: min(_BLOCK, run.end - position)]
            if os.preadv(handle, [part], position) != len(part):
                raise DecodeError("the file is shorter than its header says", code="truncated")
            if not np.isfinite(safetensors.as_array(part, run.dtype)).all():
                raise DecodeError("the update holds a number that is not finite", code="not_finite")
            position += len(part)


def _stem(participant: str, round_number: int) -> str:
    return f"{round_number}-{hashlib.sha256(participant.encode()).hexdigest()[:16]}-"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write_all(handle: int, block: bytes | memoryview) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(handle, rest) :]
