"""Publishing a model: the plan's tensors alone, whatever a strategy carries beside them; whole or not at all."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import BLOCK, atomic_file, digest_of, sha256_file, size_of, storage

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from nevermined_fl.session import Plan

__all__ = ["publish"]


def publish(model: Path, plan: Plan, into: Path) -> str:
    """Copy the plan's tensors of a model, durably; returns the copy's digest.

    Raises:
        StorageFull: there is no room; nothing was written.
        DecodeError: the model is not the one that its name says; nothing was written.
    """
    with storage(f"{into.name}", size_of(model)), model.open("rb") as source, atomic_file(into, 0o644) as file:
        is_whole = plan.carried() == plan.schema
        digest = _copy(source, file) if is_whole else _strip(source, plan, file)
        if (digest if is_whole else sha256_file(model)) != f"sha256:{model.stem}":
            raise DecodeError(f"model {model.name} is damaged", code="digest")
        file.flush()
        os.fsync(file.fileno())
    return digest


def _copy(source: IO[bytes], into: IO[bytes]) -> str:
    """The digest of what was copied, whatever the file's name says."""
    hasher = hashlib.sha256()
    while block := source.read(BLOCK):
        into.write(block)
        hasher.update(block)
    return digest_of(hasher)


def _strip(source: IO[bytes], plan: Plan, into: IO[bytes]) -> str:
    """The plan's tensors out of a file that has more, block by block."""
    hasher = hashlib.sha256()
    header = safetensors.header_bytes(plan.schema)
    there = safetensors.Header.parse(safetensors.header_bytes(plan.carried()))
    places = {entry.name: entry for entry in there.entries}
    into.write(header)
    hasher.update(header)
    for entry in safetensors.Header.parse(header).entries:
        source.seek(there.data_offset + places[entry.name].begin)
        left = entry.end - entry.begin
        while left:
            block = source.read(min(BLOCK, left))
            into.write(block)
            hasher.update(block)
            left -= len(block)
    return digest_of(hasher)
