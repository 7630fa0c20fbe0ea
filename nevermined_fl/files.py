"""Files that are whole or not there: atomic writes, private by default, digests block by block."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from nevermined_fl.errors import SettingsError, StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "BLOCK",
    "append_line",
    "atomic_file",
    "digest_of",
    "hash_file",
    "lock_file",
    "sha256_bytes",
    "sha256_file",
    "size_of",
    "storage",
    "write_atomic",
    "write_json",
]

BLOCK = 1 << 20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room, no quota, no longer file: the writer can do nothing about it, but somebody else can."""


def digest_of(hasher: Any) -> str:
    """``<kind>:<hex>`` of a hashlib object, or one like it."""
    return f"{hasher.name}:{hasher.hexdigest()}"


def sha256_bytes(raw: bytes | memoryview) -> str:
    """``sha256:<hex>`` of bytes in memory."""
    return digest_of(hashlib.sha256(raw))


def sha256_file(path: Path) -> str:
    """``sha256:<hex>`` of a file."""
    return hash_file(path, hashlib.sha256())


def hash_file(path: Path, hasher: Any) -> str:
    """``<kind>:<hex>`` of a file by a new hashlib object, or one like it; read through one pooled block."""
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            hasher.update(block[:count])
    return digest_of(hasher)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


@contextmanager
def storage(what: str, needed: int = 0) -> Iterator[None]:
    """Say StorageFull, and what needs how many bytes, when the disk takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        text = f"{what}: {error.strerror}"
        raise StorageFull(text, needed=needed, hint="make room on the disk; it goes on by itself") from error


@contextmanager
def atomic_file(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A file to write; it takes the place of ``path`` when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def lock_file(path: Path, who: str) -> int:
    """A handle that keeps the same file from being locked by another process as long as this one lives.

    Raises:
        SettingsError: ``who``, another one, holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        text = f"{path.name} is held: another {who} is at work in this folder"
        raise SettingsError(text, hint="wait until it is over, or stop it") from error
    return handle


def write_atomic(path: Path, data: bytes | str, mode: int = 0o600) -> None:
    """Write a small file, whole or not at all."""
    with atomic_file(path, mode) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, body: Any, mode: int = 0o600) -> None:
    """Write JSON for people and programs, whole or not at all."""
    write_atomic(path, json.dumps(body, indent=2, allow_nan=False) + "\n", mode)


def append_line(path: Path, text: str, mode: int = 0o600) -> None:
    """Append one line, or several, in a single write so that a crash cannot leave half of it."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode)
    try:
        raw = f"{text}\n".encode()
        while raw:  # where the disk is full, a part goes in before the next says so
            raw = raw[os.write(handle, raw) :]
    finally:
        os.close(handle)
