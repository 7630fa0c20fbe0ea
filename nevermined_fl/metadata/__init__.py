"""Metadata: where DDOs are published and found.

What belongs: one adapter per way to reach them, and what turns content and keys into DIDs and proofs. What does not:
what stands in a DDO (``assets``), the server (``metadata_api``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nevermined_fl.metadata.identity import certify, hash_did, publisher, verify_proof

if TYPE_CHECKING:
    from nevermined_fl.metadata.http import HttpMetadata
    from nevermined_fl.metadata.memory import MemoryMetadata

__all__ = ["HttpMetadata", "MemoryMetadata", "certify", "hash_did", "publisher", "verify_proof"]

# Loaded on first use: the server needs identities alone, and no HTTP client.
_HOME = {"HttpMetadata": "nevermined_fl.metadata.http", "MemoryMetadata": "nevermined_fl.metadata.memory"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
