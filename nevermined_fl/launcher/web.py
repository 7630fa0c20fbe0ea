"""Web: requests to hosts that strangers named, in DDOs: judged addresses only, no redirects, nothing without a size.

With a proxy, the proxy is what is dialled, and it looks names up: then addresses in URLs are judged here, and those of
names as far as they are known here; what the proxy may reach is its own to say.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from nevermined_fl.errors import InvalidRequest, NotFound, PermissionDenied, TransportError
from nevermined_fl.launcher.targets import is_allowed, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Web"]

_JSON_BYTES = 256 * 1024
_BLOCK = 64 * 1024
_BUSY = frozenset({408, 429})


class Web:
    """One pool of connections.

    Args:
        private: whether private, loopback and link-local addresses may be asked.
        proxy: HTTP proxy that everything goes through, ``http://host:port``.
    """

    def __init__(self, *, private: bool, proxy: str = "") -> None:
        self._private = private
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def json(self, method: str, url: str, *, seconds: float = 30.0, **options: Any) -> tuple[int, Any]:
        """Status and body (None when empty) of an answer below 400.

        Raises:
            NotFound, PermissionDenied: the other side said 404, or refused otherwise.
            TransportError: it did not answer, is busy, or answered something else than JSON.
        """
        chunks: list[bytes] = []
        status = await self._request(method, url, _bounded(chunks, _JSON_BYTES), seconds, options)
        body = b"".join(chunks)
        try:
            return status, json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise TransportError(f"{url} answered something that is not JSON") from error

    async def download(self, url: str, feed: Callable[[bytes], None], *, headers: Mapping[str, str]) -> None:
        """Give each block of a body to ``feed``, which raises when it is too much."""
        await self._request("GET", url, feed, 3600.0, {"headers": dict(headers)})

    async def close(self) -> None:
        """Let go of connections."""
        if self._session:
            await self._session.close()

    async def _request(
        self, method: str, url: str, feed: Callable[[bytes], None], seconds: float, options: Mapping[str, Any]
    ) -> int:
        host = self._judge(url)
        if self._proxy and host:
            with suppress(TransportError):  # a name that is not known here
                await resolve(host, 0, private=self._private)
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=10, sock_read=60)
        try:
            asked = self._open().request(
                method, url, timeout=limit, allow_redirects=False, proxy=self._proxy or None, **options
            )
            async with asked as answer:
                if answer.status >= 300:
                    raise _refusal(url, answer.status, await answer.content.read(2048))
                async for block in answer.content.iter_chunked(_BLOCK):
                    feed(block)
                return answer.status
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise TransportError(f"{url} did not answer: {type(error).__name__}") from error

    def _judge(self, url: str) -> str:
        """Judge the address in a URL; the name that stands in its place.

        aiohttp asks its resolver about names alone, so addresses are judged here.
        """
        try:
            host = URL(url).host or ""
            socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
        except (ValueError, TypeError) as error:
            raise InvalidRequest(f"{url[:100]!r} is not a URL", check="endpoint_form") from error
        except OSError:
            return host
        if not is_allowed(host, private=self._private):
            raise PermissionDenied(f"this provider does not dial {host}", check="target_allowed")
        return ""

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The proxy is the provider's own, wherever it is.
            resolver = aiohttp.ThreadedResolver() if self._proxy else _Resolver(private=self._private)
            connector = aiohttp.TCPConnector(resolver=resolver, limit=64)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


class _Resolver(AbstractResolver):
    """Answers with judged addresses alone, which are then the ones that are dialled."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Names to addresses."""
        try:
            target = await resolve(host, port, private=self._private)
        except TransportError as error:
            raise OSError(error.message) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in target.addresses
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _bounded(chunks: list[bytes], limit: int) -> Callable[[bytes], None]:
    def feed(block: bytes) -> None:
        chunks.append(block)
        if sum(map(len, chunks)) > limit:
            raise TransportError(f"an answer of more than {limit} bytes")

    return feed


def _refusal(url: str, status: int, body: bytes) -> Exception:
    try:
        said = json.loads(body)
        message = str(said.get("message") or said.get("error_description") or "")[:300]
    except (ValueError, AttributeError):
        message = ""
    text = f"{url} answered {status}{': ' * bool(message)}{message}"
    if status == 404:
        return NotFound(text, check="remote_exists")
    if status < 500 and status not in _BUSY:
        return PermissionDenied(text, check="remote_allows")
    return TransportError(text)
