"""The coordinator's side of HTTPS: who is asking, how much may it send, and which call of the service is meant.

Rule 1: sizes are judged from headers before a body is read. Rule 2: who asks is known before anything is done, and strangers
do not stay (``guests``). Bodies are the affair of ``receiving`` and ``sending``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import secrets
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from aiohttp import ClientError, web

from nevermined_fl.errors import (
    DecodeError,
    NeverminedFLError,
    TransportError,
    Unauthenticated,
)
from nevermined_fl.messages import JoinRequest, decode, encode
from nevermined_fl.transports.http.door import Door, allow_many_files, listen
from nevermined_fl.transports.http.guests import Guests
from nevermined_fl.transports.http.reading import SMALL_BODY, bearer_of, count_of, number_of, small_body
from nevermined_fl.transports.http.receiving import Receiver
from nevermined_fl.transports.http.sending import send_file
from nevermined_fl.transports.http.wire import ERROR, LENGTH, MAX_WAIT, OFFSET, error_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nevermined_fl.messages import Message
    from nevermined_fl.ports import SessionService, UpdateSink

__all__ = ["HttpServer", "server_context"]

logger = logging.getLogger(__name__)

_GREETING = 60.0
_STRANGERS = 1000
_SWEEP = 1.0
_KEPT = 300.0
"""Seconds for which a connection may be idle: who trains longer dials again."""
_THREADS = max(2, os.cpu_count() or 1)
_READ_AHEAD = 64 * 1024
_LINGER = 2.0
"""Seconds for which the rest of a refused body is thrown away, so that an honest peer gets to read why."""
_JOIN_BODY = 160 * 1024
"""The longest token and a proof: a thousand strangers may each have as much in our memory."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3 with this certificate (PEM files)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.num_tickets = 0  # nobody resumes; and until an answer comes nothing is to be read
    return context


class HttpServer:
    """Serves one session.

    Args:
        service: the session.
        status: what ``GET /v1/health`` says to everybody.
        metrics: what ``GET /v1/metrics`` says to whoever shows ``metrics_bearer``.
        metrics_bearer: none: nobody may see them.
        greeting: seconds in which a connection has to show a bearer, or to join.
        strangers: connections that may be open without; beyond that the oldest go.
    """

    def __init__(
        self,
        service: SessionService,
        *,
        status: Callable[[], dict[str, str]],
        metrics: Callable[[], bytes] = bytes,
        metrics_bearer: str = "",
        greeting: float = _GREETING,
        strangers: int = _STRANGERS,
    ) -> None:
        self._service = service
        self._guests = Guests(greeting=greeting, strangers=strangers)
        self._nap = min(_SWEEP, greeting / 2)
        self._sweeping: asyncio.Task[None] | None = None
        self._door: Door | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="receive")
        self._receiver = Receiver(self._threads)
        self._status = status
        self._metrics, self._metrics_bearer = metrics, metrics_bearer
        self._bearers: dict[str, str] = {}  # digest of the bearer -> participant
        self._uploads: WeakValueDictionary[str, asyncio.Task[Any]] = WeakValueDictionary()
        app = web.Application(middlewares=[self._answered], client_max_size=SMALL_BODY)
        app.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/metrics", self._scrape),
                web.post("/v1/join", self._join),
                web.post("/v1/leave", self._leave),
                web.get("/v1/tasks", self._task),
                web.get("/v1/models/{digest}", self._model, allow_head=False),
                web.get("/v1/models/{digest}/from/{base}", self._delta, allow_head=False),
                web.head("/v1/rounds/{round:[0-9]{1,9}}/updates/{digest}", self._offset),
                web.put("/v1/rounds/{round:[0-9]{1,9}}/updates/{digest}", self._upload),
                web.post("/v1/rounds/{round:[0-9]{1,9}}/report", self._report),
                web.post("/v1/rounds/{round:[0-9]{1,9}}/evaluation", self._evaluation),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_KEPT,
            lingering_time=_LINGER,
            read_bufsize=_READ_AHEAD,
            shutdown_timeout=1.0,
        )

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; returns the port, which is another one when ``port`` is 0.

        Raises:
            TransportError: the port is taken.
        """
        allow_many_files()
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            sock = listen(host, port)
        except OSError as error:
            raise TransportError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._door = Door(sock, self._runner.server, context)
        self._sweeping = asyncio.ensure_future(self._sweep())
        found: int = sock.getsockname()[1]
        return found

    async def close(self) -> None:
        """Stop listening and let go of connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._door is not None:
            await self._door.close()
        await self._runner.cleanup()
        self._threads.shutdown(wait=False)

    def connections(self) -> int:
        """How many are open, of participants and strangers."""
        return len(self._runner.server.connections) if self._runner.server else 0

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._nap)
            server = self._runner.server
            found = [handler.transport for handler in (server.connections if server else [])]
            self._guests.sweep(transport for transport in found if transport is not None)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(self._status())

    async def _scrape(self, request: web.Request) -> web.Response:
        bearer = bearer_of(request)
        if not bearer or not secrets.compare_digest(bearer, self._metrics_bearer.encode()):
            raise Unauthenticated("metrics are for whoever holds their bearer", check="bearer")
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _join(self, request: web.Request) -> web.Response:
        message = decode(await small_body(request, _JOIN_BODY), JoinRequest)
        assert isinstance(message, JoinRequest)
        joined = await self._service.join(message)
        self._bearers = {b: p for b, p in self._bearers.items() if p != joined.participant}
        self._bearers[_hash(joined.bearer.encode())] = joined.participant
        self._greet(request, joined.participant)
        return _answer(joined)

    async def _leave(self, request: web.Request) -> web.Response:
        await self._service.leave(self._authenticate(request))
        return web.Response(status=204)

    async def _task(self, request: web.Request) -> web.Response:
        participant = self._authenticate(request)
        after = count_of(request.query.get("after", "0"))
        wait = min(max(number_of(request.query.get("wait", "0")), 0.0), MAX_WAIT)
        return _answer(await self._service.next_task(participant, after=after, wait=wait))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        participant = self._authenticate(request)
        path = self._service.model_path(request.match_info["digest"], participant=participant)
        return await self._send(request, path, participant)

    async def _delta(self, request: web.Request) -> web.StreamResponse:
        participant, where = self._authenticate(request), request.match_info
        path = self._service.delta_path(where["base"], where["digest"], participant=participant)
        return await self._send(request, path, participant)

    async def _send(self, request: web.Request, path: Path, participant: str) -> web.StreamResponse:
        response = await send_file(request, path, self._threads)
        self._service.fetched(participant)
        return response

    async def _offset(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers={OFFSET: str(self._open(request).offset)})

    async def _upload(self, request: web.Request) -> web.Response:
        sink = self._open(request)
        start, total = count_of(request.headers.get(OFFSET)), count_of(request.headers.get(LENGTH))
        if start != sink.offset:
            body = {"error": "offset", "message": f"{sink.offset} bytes are here, the upload goes on at {start}"}
            return web.json_response(body, status=409, headers={OFFSET: str(sink.offset)})
        if request.content_length is None or start + request.content_length > total:
            raise DecodeError(f"{request.content_length} bytes announced from {start} on, {total} in all", code="size")
        self._supersede(self._authenticate(request))
        await self._receiver.receive(request, sink, total)
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
        return _answer(await self._service.report(participant, (await small_body(request)).decode("ascii", "replace")))

    async def _evaluation(self, request: web.Request) -> web.Response:
        participant = self._authenticate(request)
        text = (await small_body(request)).decode("ascii", "replace")
        return _answer(await self._service.evaluated(participant, text))

    @web.middleware
    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every failure is JSON; our own bugs are logged here and said to nobody."""
        try:
            answer = await handler(request)
        except NeverminedFLError as error:
            status, body = error_answer(error)
            # A stranger's refusal is no news: he can ask for as many as he likes.
            level = logging.WARNING if status >= 500 else logging.DEBUG if status == 401 else logging.INFO
            logger.log(level, "%s %s: %s", request.method, request.path, error, extra=self._who(request))
            answer = _refusal(request, status, body)
        except web.HTTPException as error:
            answer = _refusal(request, error.status, {"error": "http", "message": error.reason})
        except (ConnectionError, ClientError):
            answer = _refusal(request, 400, {"error": "truncated", "message": "the body ended early"})
        except Exception:
            logger.exception("%s %s failed", request.method, request.path, extra=self._who(request))
            body = {"error": "internal", "message": "the coordinator failed; it is not your fault"}
            answer = _refusal(request, 500, body)
        if self._receiver.has_taken(request):
            answer.force_close()
        return answer

    def _who(self, request: web.Request) -> dict[str, str]:
        return {"participant": self._guests.name(request.transport)}

    def _open(self, request: web.Request) -> UpdateSink:
        participant = self._authenticate(request)
        where = request.match_info
        size = count_of(request.headers.get(LENGTH))
        return self._service.open_update(
            participant, round_number=int(where["round"]), digest=where["digest"], size=size
        )

    def _authenticate(self, request: web.Request) -> str:
        participant = self._bearers.get(_hash(bearer_of(request)))
        if participant is None:
            raise Unauthenticated("the bearer is not known here", check="bearer", hint="join again")
        self._greet(request, participant)
        return participant

    def _greet(self, request: web.Request, participant: str) -> None:
        if request.transport is not None:
            self._guests.greet(request.transport, participant)


def _refusal(request: web.Request, status: int, body: dict[str, str]) -> web.Response:
    answer = web.json_response(body, status=status)
    if request.method == "HEAD":
        answer.headers[ERROR] = json.dumps(body)
    if not request.content.at_eof() and request.body_exists:
        answer.force_close()  # the rest of a refused body is not worth reading
    return answer


def _answer(message: Message) -> web.Response:
    return web.Response(body=encode(message), content_type="application/json")


def _hash(bearer: bytes) -> str:
    # Looked up by digest: the time that a look-up takes says nothing about a bearer.
    return hashlib.sha256(bearer).hexdigest()
