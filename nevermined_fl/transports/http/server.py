"""The coordinator's side of HTTPS: who is asking, how much may it send, and which call of the service is meant.

Rule 1: sizes are judged from headers before a body is read. Rule 2: a connection on which nobody has said who he is does
not stay, so that strangers cannot take all that this process may open. Rule 3: a body goes through one pooled block per upload;
digests and writes happen in a thread, so that one big upload delays nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import ssl
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from aiohttp import ClientError, web

from nevermined_fl.errors import (
    DecodeError,
    InvalidRequest,
    NeverminedFLError,
    TransportError,
    Unauthenticated,
)
from nevermined_fl.files import BLOCK
from nevermined_fl.messages import MAX_MESSAGE_BYTES, JoinRequest, decode, encode
from nevermined_fl.transports.http.wire import ERROR, LENGTH, MAX_WAIT, OFFSET, error_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nevermined_fl.messages import Message
    from nevermined_fl.ports import SessionService, UpdateSink

__all__ = ["HttpServer", "server_context"]

logger = logging.getLogger(__name__)

_IDLE = 60.0
_GREETING = 60.0
_STRANGERS = 1000
_SWEEP = 1.0
_PIECE = 256 * 1024
_LINGER = 2.0
"""Seconds for which the rest of a refused body is thrown away, so that an honest peer gets to read why."""
_SMALL_BODY = MAX_MESSAGE_BYTES


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 with this certificate (PEM files)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    return context


class HttpServer:
    """Serves one session.

    Args:
        service: the session.
        status: what ``GET /v1/health`` says to everybody.
        greeting: seconds in which a connection has to show a bearer, or to join.
        strangers: connections that may be open without; beyond that the oldest go.
    """

    def __init__(
        self,
        service: SessionService,
        *,
        status: Callable[[], dict[str, str]],
        greeting: float = _GREETING,
        strangers: int = _STRANGERS,
    ) -> None:
        self._service = service
        self._greeting, self._most_strangers = greeting, strangers
        self._known: WeakSet[asyncio.Transport] = WeakSet()
        self._strangers: dict[asyncio.Transport, float] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._status = status
        self._bearers: dict[str, str] = {}  # digest of the bearer -> participant
        self._uploads: WeakValueDictionary[str, asyncio.Task[Any]] = WeakValueDictionary()
        app = web.Application(middlewares=[_errors], client_max_size=_SMALL_BODY)
        app.add_routes(
            [
                web.get("/v1/health", self._health),
                web.post("/v1/join", self._join),
                web.post("/v1/leave", self._leave),
                web.get("/v1/tasks", self._task),
                web.get("/v1/models/{digest}", self._model),
                web.head("/v1/rounds/{round:[0-9]{1,9}}/updates/{digest}", self._offset),
                web.put("/v1/rounds/{round:[0-9]{1,9}}/updates/{digest}", self._upload),
                web.post("/v1/rounds/{round:[0-9]{1,9}}/report", self._report),
                web.post("/v1/rounds/{round:[0-9]{1,9}}/evaluation", self._evaluation),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, lingering_time=_LINGER)

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; returns the port, which is another one when ``port`` is 0.

        Raises:
            TransportError: the port is taken.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise TransportError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._sweeping = asyncio.ensure_future(self._sweep())
        found: int = self._runner.addresses[0][1]
        return found

    async def close(self) -> None:
        """Stop listening and let go of connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._runner.cleanup()

    async def _sweep(self) -> None:
        """End connections of strangers; aiohttp itself waits for a first request for ever."""
        while True:
            await asyncio.sleep(min(_SWEEP, self._greeting / 2))
            now, server = time.monotonic(), self._runner.server
            found = [handler.transport for handler in (server.connections if server else [])]
            strangers = [transport for transport in found if transport is not None and transport not in self._known]
            self._strangers = {transport: self._strangers.get(transport, now) for transport in strangers}
            oldest = sorted(self._strangers.items(), key=lambda item: item[1])
            for place, (transport, since) in enumerate(oldest):
                if now - since > self._greeting or place < len(oldest) - self._most_strangers:
                    transport.abort()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def _join(self, request: web.Request) -> web.Response:
        message = decode(await _small_body(request), JoinRequest)
        assert isinstance(message, JoinRequest)
        joined = await self._service.join(message)
        self._bearers = {b: p for b, p in self._bearers.items() if p != joined.participant}
        self._bearers[_hash(joined.bearer)] = joined.participant
        self._greet(request)
        return _answer(joined)

    async def _leave(self, request: web.Request) -> web.Response:
        await self._service.leave(self._authenticate(request))
        return web.Response(status=204)

    async def _task(self, request: web.Request) -> web.Response:
        participant = self._authenticate(request)
        after = _number(request.query.get("after", "0"))
        wait = min(max(_float(request.query.get("wait", "0")), 0.0), MAX_WAIT)
        return _answer(await self._service.next_task(participant, after=after, wait=wait))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        self._authenticate(request)
        path = self._service.model_path(request.match_info["digest"])
        if request.secure:
            return await _send(request, path)
        return web.FileResponse(path)  # the kernel sends it

    async def _offset(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers={OFFSET: str(self._open(request).offset)})

    async def _upload(self, request: web.Request) -> web.Response:
        sink = self._open(request)
        start, total = _number(request.headers.get(OFFSET)), _number(request.headers.get(LENGTH))
        if start != sink.offset:
            body = {"error": "offset", "message": f"{sink.offset} bytes are here, the upload goes on at {start}"}
            return web.json_response(body, status=409, headers={OFFSET: str(sink.offset)})
        if request.content_length is None or start + request.content_length > total:
            raise DecodeError(f"{request.content_length} bytes announced from {start} on, {total} in all", code="size")
        self._supersede(self._authenticate(request))
        await _receive(request, sink)
        if sink.offset == total:
            await asyncio.to_thread(sink.commit)
        return web.Response(status=204, headers={OFFSET: str(sink.offset)})

    def _supersede(self, participant: str) -> None:
        """One upload per participant: whoever opens many holds one block of memory, not many."""
        previous, current = self._uploads.get(participant), asyncio.current_task()
        if previous is not None and previous is not current:
            previous.cancel()
        if current is not None:
            self._uploads[participant] = current

    async def _report(self, request: web.Request) -> web.Response:
        participant = self._authenticate(request)
        return _answer(await self._service.report(participant, (await _small_body(request)).decode("ascii", "replace")))

    async def _evaluation(self, request: web.Request) -> web.Response:
        participant = self._authenticate(request)
        text = (await _small_body(request)).decode("ascii", "replace")
        return _answer(await self._service.evaluated(participant, text))

    def _open(self, request: web.Request) -> UpdateSink:
        participant = self._authenticate(request)
        where = request.match_info
        size = _number(request.headers.get(LENGTH))
        return self._service.open_update(
            participant, round_number=int(where["round"]), digest=where["digest"], size=size
        )

    def _authenticate(self, request: web.Request) -> str:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        participant = self._bearers.get(_hash(bearer))
        if scheme != "Bearer" or participant is None:
            raise Unauthenticated("the bearer is not known here", check="bearer", hint="join again")
        self._greet(request)
        return participant

    def _greet(self, request: web.Request) -> None:
        if isinstance(request.transport, asyncio.Transport):
            self._known.add(request.transport)


async def _send(request: web.Request, path: Path) -> web.StreamResponse:
    """A file over TLS. aiohttp's own way goes through a thread every 16 KiB, which costs more than the encryption."""
    start = request.http_range.start or 0
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if not 0 <= start < size:
            raise web.HTTPRequestRangeNotSatisfiable
        file.seek(start)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = size - start
        await response.prepare(request)
        while block := file.read(_PIECE):
            await response.write(block)
        await response.write_eof()
    return response


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Every failure is JSON; our own bugs are logged here and said to nobody."""
    try:
        return await handler(request)
    except NeverminedFLError as error:
        status, body = error_answer(error)
        logger.log(logging.WARNING if status >= 500 else logging.INFO, "%s %s: %s", request.method, request.path, error)
    except web.HTTPException as error:
        status, body = error.status, {"error": "http", "message": error.reason}
    except (ConnectionError, ClientError):
        status, body = 400, {"error": "truncated", "message": "the body ended early"}
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        status, body = 500, {"error": "internal", "message": "the coordinator failed; it is not your fault"}
    answer = web.json_response(body, status=status)
    if request.method == "HEAD":
        answer.headers[ERROR] = json.dumps(body)
    if not request.content.at_eof() and request.body_exists:
        answer.force_close()  # the rest of a refused body is not worth reading
    return answer


async def _receive(request: web.Request, sink: UpdateSink) -> None:
    """Put the body into the sink; what came before a disconnect is kept."""
    block = memoryview(bytearray(BLOCK))
    filled = 0
    try:
        while chunk := await _chunk(request):
            rest = memoryview(chunk)
            while rest:
                count = min(len(rest), BLOCK - filled)
                block[filled : filled + count] = rest[:count]
                filled, rest = filled + count, rest[count:]
                if filled == BLOCK:
                    filled = 0
                    await asyncio.to_thread(sink.write, block)
    finally:
        # After a broken connection too: these bytes need not come again.
        if filled:
            await asyncio.to_thread(sink.write, block[:filled])


async def _chunk(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(_IDLE):
            return await request.content.readany()
    except TimeoutError as error:
        raise TransportError("nothing came for a minute") from error


async def _small_body(request: web.Request) -> bytes:
    if (request.content_length or 0) > _SMALL_BODY:
        raise DecodeError(f"a message has at most {_SMALL_BODY} bytes", code="too_large")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise DecodeError(f"a message has at most {_SMALL_BODY} bytes", code="too_large") from error


def _answer(message: Message) -> web.Response:
    return web.Response(body=encode(message), content_type="application/json")


def _number(text: str | None) -> int:
    """A count in a header or a query."""
    value = _float(text)
    if not 0 <= value < 2**53:
        raise InvalidRequest(f"expected a count, got {str(text)[:40]!r}", check="number")
    return int(value)


def _float(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else -1.0


def _hash(bearer: str) -> str:
    # Looked up by digest: the time that a look-up takes says nothing about a bearer.
    return hashlib.sha256(bearer.encode()).hexdigest()
