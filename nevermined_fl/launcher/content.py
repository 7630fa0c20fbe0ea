"""Content: files by what is in them, ``content/<sha256>`` in the provider's data folder; the gateway reads and adds, too."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from nevermined_fl.errors import DecodeError, NotFound
from nevermined_fl.files import BLOCK, storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

__all__ = ["Content", "Incoming", "copy_file", "drop_parts", "receive"]

_STALE = 3600.0
"""Seconds; whoever has not written to a file for so long is dead."""


class Content:
    """The store in ``folder``. Digests are ``sha256:<hex>``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        drop_parts(folder)

    def path(self, digest: str) -> Path:
        """The file with that digest.

        Raises:
            NotFound: it is not kept here.
        """
        path = self._folder / digest.removeprefix("sha256:")
        if not path.is_file():
            raise NotFound(f"no content {digest} here", check="file_kept_here")
        return path

    def has(self, digest: str) -> bool:
        """Whether it is kept here."""
        return (self._folder / digest.removeprefix("sha256:")).is_file()

    def add(self, source: Path) -> str:
        """Copy a file in; returns its digest."""
        temporary = self._folder / f".{secrets.token_hex(8)}.part"
        try:
            digest = copy_file(source, temporary)
            temporary.replace(self._folder / digest.removeprefix("sha256:"))
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def place(self, digest: str) -> Path:
        """Where the file with that digest is, or belongs."""
        return self._folder / digest.removeprefix("sha256:")


def drop_parts(folder: Path) -> None:
    """Drop what killed processes left half-written. Gateway and launcher share the folder: what is fresh is the other's."""
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < time.time() - _STALE:
                part.unlink()


@asynccontextmanager
async def receive(target: Path, *, digest: str, size: int) -> AsyncIterator[Incoming]:
    """Take a file in, block by block; it is at ``target`` when it turned out to be what was expected.

    Raises:
        DecodeError: more or fewer bytes than ``size``, or another digest.
        StorageFull: the disk has no room for it.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with (
            storage(f"file {digest}", size),
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            incoming = Incoming(file.write, size)
            yield incoming
        incoming.check(digest)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


class Incoming:
    """A file on its way in, at most ``size`` bytes."""

    def __init__(self, write: Callable[[bytes], object], size: int) -> None:
        self._write = write
        self._size = size
        self._hash = hashlib.sha256()
        self._got = 0

    def feed(self, block: bytes) -> None:
        """The next block."""
        self._got += len(block)
        if self._got > self._size:
            raise DecodeError(f"more than the {self._size} bytes that were announced", code="too_large")
        self._hash.update(block)
        self._write(block)

    def check(self, digest: str) -> None:
        """Compare with what was announced."""
        found = f"sha256:{self._hash.hexdigest()}"
        if self._got != self._size or found != digest:
            raise DecodeError(f"expected {digest} of {self._size} bytes, got {found} of {self._got}", code="digest")


def copy_file(source: Path, target: Path) -> str:
    """Copy a file (0600) and return the digest of what was copied. Raises StorageFull when there is no room for it."""
    hasher = hashlib.sha256()
    with (
        storage(f"a copy of {source.name}", source.stat().st_size),
        source.open("rb") as reader,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writer,
    ):
        while block := reader.read(BLOCK):
            hasher.update(block)
            writer.write(block)
    return f"sha256:{hasher.hexdigest()}"
