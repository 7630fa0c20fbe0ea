"""Does a server answer?"""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import urlsplit

__all__ = ["answers"]


def answers(url: str, *, seconds: float = 2.0) -> bool:
    """Whether something speaks HTTP at ``url``; a refusal (401 of a launcher, 405 of a chain) is an answer too."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)) as connection:
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
