"""Content: files by what is in them, ``content/<sha256>`` in the provider's data folder; the launcher uses it too."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from nevermined_fl.errors import InvalidRequest, NotFound
from nevermined_fl.files import BLOCK, storage
from nevermined_fl.launcher.content import drop_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Content", "Draft"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A file that arrived whole but has no name yet. Sizes are bytes."""

    path: Path
    target: Path
    sha256: str
    size: int

    def keep(self) -> None:
        """Give it its name; the same content twice is one file."""
        self.path.replace(self.target)


class Content:
    """The store in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        drop_parts(folder)

    def path(self, sha256: str) -> Path:
        """The file with that digest (64 hex digits, checked by the caller).

        Raises:
            NotFound: it is not kept here.
        """
        path = self._folder / sha256
        if not path.is_file():
            raise NotFound(f"no content {sha256} here", check="file_kept_here")
        return path

    @contextmanager
    def receive(self, stream: IO[bytes], size: int) -> Iterator[Draft]:
        """Read exactly ``size`` bytes into a draft, which is gone after the block unless kept.

        Raises:
            InvalidRequest: the stream ended early.
            StorageFull: the disk has no room for it.
        """
        temporary = self._folder / f".{secrets.token_hex(8)}.part"
        try:
            digest = _copy(stream, temporary, size)
            yield Draft(temporary, self._folder / digest, digest, size)
        finally:
            temporary.unlink(missing_ok=True)


def _copy(stream: IO[bytes], path: Path, size: int) -> str:
    hasher, left = hashlib.sha256(), size
    with (
        storage("an upload", size),
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        while left:
            block = stream.read(min(BLOCK, left))
            if not block:
                raise InvalidRequest(f"the body ended {left} bytes short of its Content-Length", check="body_complete")
            hasher.update(block)
            file.write(block)
            left -= len(block)
    return hasher.hexdigest()
