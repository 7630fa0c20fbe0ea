"""HTTP CONNECT (RFC 9110, 9.3.6): what a proxy is asked, and whether it did it. Bytes in, bytes out; who dials is the caller's affair."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from nevermined_fl.errors import SettingsError, TransportError

__all__ = ["END", "LONGEST_ANSWER", "Proxy", "judge", "parse_proxy", "request"]

END = b"\r\n\r\n"
"""After this the tunnel's own bytes begin."""
LONGEST_ANSWER = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r)")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy listens."""

    host: str
    port: int


def parse_proxy(url: str) -> Proxy | None:
    """``http://host:port``, or nothing for the empty text.

    Raises:
        SettingsError: another scheme, a path, credentials, no port.
    """
    if not url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        host, port = "", 0
    if not port or url.rstrip("/").lower() != f"http://{_bracketed(host)}:{port}":
        raise SettingsError("a proxy is http://host:port, without credentials", hint="correct the setting proxy")
    return Proxy(host, port)


def request(host: str, port: int) -> bytes:
    """What opens a tunnel to that place."""
    place = f"{_bracketed(host)}:{port}"
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii")


def judge(answer: bytes) -> None:
    """Whether the tunnel is open. Raises TransportError with the proxy's status, or saying that it is no proxy."""
    status = _STATUS.match(answer)
    if status is None:
        raise TransportError("the proxy did not answer in HTTP")
    if not 200 <= int(status[1]) < 300:
        raise TransportError(f"the proxy refused the connection with HTTP {int(status[1])}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
