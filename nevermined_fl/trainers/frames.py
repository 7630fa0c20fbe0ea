"""Frames: what goes through the two pipes between the participant and the buyer's process.

A frame is four bytes of length, big endian, and that many bytes of JSON, an object. Tensors are files in the scratch folder.
"""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError

if TYPE_CHECKING:
    import asyncio

__all__ = ["MAX_FRAME", "encode", "read", "read_async", "write"]

# A pipe holds 64 KiB: a frame of this size never blocks its writer for long.
MAX_FRAME = 60 * 1024
_LENGTH = struct.Struct(">I")


def encode(body: dict[str, Any]) -> bytes:
    """Length and JSON.

    Raises:
        DecodeError: longer than MAX_FRAME.
    """
    raw = json.dumps(body, separators=(",", ":")).encode()
    if len(raw) > MAX_FRAME:
        raise DecodeError(f"a frame of {len(raw)} bytes; at most {MAX_FRAME} go through", code="too_large")
    return _LENGTH.pack(len(raw)) + raw


def write(handle: int, body: dict[str, Any]) -> None:
    """Write one frame to a file descriptor."""
    raw = memoryview(encode(body))
    while raw:
        raw = raw[os.write(handle, raw) :]


def read(handle: int) -> dict[str, Any] | None:
    """Read one frame from a file descriptor; None when the other side is gone."""
    head = _read_exactly(handle, _LENGTH.size)
    body = _read_exactly(handle, _length(head)) if head else None
    return _parse(body) if body is not None else None


async def read_async(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read one frame that a hostile child may have written.

    Raises:
        DecodeError: too long, or not a JSON object.
        asyncio.IncompleteReadError: the child is gone.
    """
    return _parse(await reader.readexactly(_length(await reader.readexactly(_LENGTH.size))))


def _length(head: bytes) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > MAX_FRAME:
        raise DecodeError(f"a frame of {length} bytes; at most {MAX_FRAME} go through", code="too_large")
    return length


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DecodeError("the frame is not JSON") from error
    if not isinstance(body, dict):
        raise DecodeError("a frame is a JSON object")
    return body


def _read_exactly(handle: int, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        if not (part := os.read(handle, count - len(parts))):
            return None
        parts += part
    return bytes(parts)
