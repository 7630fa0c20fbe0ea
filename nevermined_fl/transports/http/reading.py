"""Reading what a request says: its bearer, counts in headers and queries, a small body. Nothing of it is believed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nevermined_fl.errors import DecodeError, InvalidRequest
from nevermined_fl.messages import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["SMALL_BODY", "bearer_of", "count_of", "number_of", "small_body"]

SMALL_BODY = MAX_MESSAGE_BYTES


async def small_body(request: web.Request, most: int = SMALL_BODY) -> bytes:
    """All of it. Raises DecodeError: it has more than ``most`` bytes, or says so."""
    too_large = DecodeError(f"such a message has at most {most} bytes", code="too_large")
    if (request.content_length or 0) > most:
        raise too_large
    body = bytearray()
    async for block in request.content.iter_any():  # also what does not say its length
        body += block
        if len(body) > most:
            raise too_large
    return bytes(body)


def bearer_of(request: web.Request) -> bytes:
    """The bearer that is shown (RFC 6750), as it came: a stranger's need not be UTF-8. Empty: none."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return bearer.encode("utf-8", "surrogateescape") if scheme == "Bearer" else b""


def count_of(text: str | None) -> int:
    """A count in a header or a query. Raises InvalidRequest."""
    value = number_of(text)
    if not 0 <= value < 2**53:
        raise InvalidRequest(f"expected a count, got {str(text)[:40]!r}", check="number")
    return int(value)


def number_of(text: str | None) -> float:
    """A number in a header or a query; -1 when it is none, or not finite."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else -1.0
