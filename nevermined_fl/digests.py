"""Digests that say of which kind they are: ``sha256:<64 hex>`` or ``blake3:<64 hex>``.

A model's is SHA-256, for it is also the checksum of an asset. An update's may be either: the coordinator computes one for
each participant in every round, and BLAKE3 takes a third of the time (docs/decisions/0013).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from nevermined_fl.errors import DecodeError
from nevermined_fl.files import hash_file
from nevermined_fl.messages import UPDATE_DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["BLAKE3", "SHA256", "Hasher", "digest_file", "hasher", "hasher_of"]

SHA256, BLAKE3 = "sha256", "blake3"


class Hasher(Protocol):
    """What hashlib's objects and BLAKE3's have in common."""

    @property
    def name(self) -> str:
        """The kind."""
        ...

    def update(self, data: bytes | memoryview, /) -> object:
        """Go on with these bytes."""
        ...

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        ...


_HASHERS: dict[str, Callable[[], Hasher]] = {SHA256: hashlib.sha256, BLAKE3: blake3}


def hasher(kind: str) -> Hasher:
    """A new one of a kind."""
    return _HASHERS[kind]()


def hasher_of(digest: str) -> Hasher:
    """A new one of the kind of this digest. Raises DecodeError when it is no update's digest."""
    if not UPDATE_DIGEST.fullmatch(digest):
        raise DecodeError("a digest is sha256:<64 hex> or blake3:<64 hex>")
    return hasher(digest.partition(":")[0])


def digest_file(path: Path, like: str) -> str:
    """The digest of a file, of this kind or of the kind of this digest."""
    return hash_file(path, hasher(like) if like in _HASHERS else hasher_of(like))
