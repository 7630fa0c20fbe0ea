"""The participant's side of HTTPS: how does a request get through, however often the line drops?

Every call is tried again, with growing pauses, until ``patience`` seconds passed without progress; then TransportError.
Uploads and downloads go on where they stopped. The certificate is pinned: exactly the one given is trusted. The talking is
done by blocking calls in one thread per link (docs/decisions/0010); whoever cancels a call cuts its connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast, get_args
from urllib.parse import urlsplit

from nevermined_fl.errors import DecodeError, NotFound, RemoteProtocolError, SettingsError, TransportError
from nevermined_fl.files import size_of
from nevermined_fl.messages import Joined, Task, Verdict, decode, encode
from nevermined_fl.tokens import EVALUATED, REPORT
from nevermined_fl.transports.http.connection import Connection
from nevermined_fl.transports.http.dialling import Errand, Line, Route
from nevermined_fl.transports.http.proxy import parse_proxy
from nevermined_fl.transports.http.wire import LENGTH, OFFSET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nevermined_fl.messages import Evaluated, JoinRequest, Message, Report
    from nevermined_fl.tokens import JobKey
    from nevermined_fl.transports.http.connection import Answer

__all__ = ["HttpLink", "fingerprint_of", "pinned_context"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0

_T = TypeVar("_T")


def fingerprint_of(certificate: str) -> str:
    """``sha256:<hex>`` of a PEM certificate's DER form.

    Raises:
        SettingsError: it is no certificate.
    """
    try:
        return f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()}"
    except ValueError as error:
        raise SettingsError("the coordinator's certificate is not PEM") from error


def pinned_context(certificate: str, fingerprint: str) -> ssl.SSLContext:
    """TLS 1.3 that trusts this one certificate, whatever host name it carries.

    Raises:
        SettingsError: the certificate does not have that fingerprint.
    """
    if fingerprint_of(certificate) != fingerprint:
        raise SettingsError(f"the coordinator's certificate does not have the fingerprint {fingerprint}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the record pins the certificate itself; its names say nothing
    try:
        context.load_verify_locations(cadata=certificate)
    except ssl.SSLError as error:
        raise SettingsError("the coordinator's certificate cannot be read") from error
    return context


class HttpLink:
    """A participant's link to its coordinator.

    Args:
        url: ``https://host:port``.
        key: the job's key, which signs what is reported.
        context: see pinned_context; None for plain HTTP in tests.
        uds: unix socket of a relay to ``url``; without it the link dials by itself.
        proxy: ``http://host:port`` of a proxy that takes CONNECT, when the link dials by itself.
        patience: seconds without progress after which a call gives up.
        limit: bytes that a model may have.
    """

    def __init__(
        self,
        url: str,
        *,
        key: JobKey,
        context: ssl.SSLContext | None,
        uds: Path | None = None,
        proxy: str = "",
        patience: float = 60.0,
        limit: int = 2**40,
    ) -> None:
        self._key = key
        self._patience = patience
        self._limit = limit
        self._headers: dict[str, str] = {}
        self._begun = ""
        self._is_closed = False
        parts = urlsplit(url)
        route = Route(parts.hostname or "", parts.port or 443, context, uds=uds, proxy=parse_proxy(proxy))
        self._line = Line()
        self._connection = Connection(route, self._line)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="link")

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        joined = await self._ask("POST", "/v1/join", Joined, content=encode(request))
        assert isinstance(joined, Joined)
        self._headers = {"Authorization": f"Bearer {joined.bearer}"}
        return joined

    async def next_task(self, *, after: int, wait: float) -> Task:
        """As SessionService.next_task."""
        return cast("Task", await self._ask("GET", f"/v1/tasks?after={after}&wait={wait:g}", *get_args(Task)))

    async def fetch_model(self, digest: str, into: Path) -> None:
        """Download (resuming), check the digest, and rename into place."""
        part = into.with_name(f"{into.name}.part")
        if await self._fetch(f"/v1/models/{digest}", part) != digest:
            part.unlink()
            raise DecodeError("the model is not what its digest names", code="digest")
        part.replace(into)

    async def fetch_delta(self, base: str, digest: str, into: Path) -> None:
        """Download (resuming) what changes ``base`` into ``digest``, and rename into place."""
        part = into.with_name(f"{into.name}.part")
        await self._fetch(f"/v1/models/{digest}/from/{base}", part)
        part.replace(into)

    async def send_update(self, *, round_number: int, digest: str, path: Path) -> None:
        """Upload (resuming where the coordinator has got to)."""
        url, size = f"/v1/rounds/{round_number}/updates/{digest}", size_of(path)
        reached = 0

        async def attempt() -> None:
            nonlocal reached
            if self._begun == url:  # some of it may be there, so it is asked how much
                reached = _offset(await self._exchange("HEAD", url, headers={LENGTH: str(size)}))
            self._begun = url
            while True:  # where all of it is there, an empty upload has it judged: that may not have been done
                headers = self._headers | {OFFSET: str(reached), LENGTH: str(size)}
                answer = await self._do(self._connection.upload, url, headers, path, reached)
                if answer.status != 409:
                    return
                if (there := _offset(answer)) == reached:
                    raise TransportError("the coordinator cannot say how much of the update it has")
                reached = there

        await self._patiently(attempt, lambda: reached)

    async def report(self, report: Report) -> Verdict:
        """Sign and send."""
        signed = self._key.sign(encode(report), typ=REPORT)
        return await self._verdict(f"/v1/rounds/{report.round}/report", signed)

    async def evaluated(self, evaluated: Evaluated) -> Verdict:
        """Sign and send."""
        signed = self._key.sign(encode(evaluated), typ=EVALUATED)
        return await self._verdict(f"/v1/rounds/{evaluated.round}/evaluation", signed)

    async def leave(self) -> None:
        """Say that no answer will come any more."""

        async def attempt() -> None:
            await self._exchange("POST", "/v1/leave")

        await self._patiently(attempt, lambda: 0)

    async def close(self) -> None:
        """Let go of the connection and of the thread; closing again is no error."""
        if not self._is_closed:
            self._is_closed = True
            await self._do(self._connection.close)
            self._thread.shutdown(wait=False)

    async def _verdict(self, url: str, signed: str) -> Verdict:
        verdict = await self._ask("POST", url, Verdict, content=signed.encode())
        assert isinstance(verdict, Verdict)
        return verdict

    async def _ask(self, method: str, url: str, *expected: type[Message], content: bytes = b"") -> Message:
        answer: bytes = b""

        async def attempt() -> None:
            nonlocal answer
            answer = (await self._exchange(method, url, content=content)).body

        await self._patiently(attempt, lambda: 0)
        return decode(answer, *expected)

    async def _fetch(self, url: str, part: Path) -> str:
        """Download into ``part``; the digest of what came."""
        digest = ""

        async def attempt() -> None:
            nonlocal digest
            try:
                digest = await self._do(self._connection.download, url, self._headers, part, self._limit)
            except NotFound:
                raise
            except RemoteProtocolError as error:
                if not size_of(part):
                    raise
                _forget(part)  # what an earlier process left cannot be gone on with
                raise TransportError("the download starts anew") from error

        await self._patiently(attempt, lambda: size_of(part))
        return digest

    async def _exchange(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> Answer:
        return await self._do(self._connection.exchange, method, url, self._headers | (headers or {}), content)

    async def _do(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Blocking work in the link's thread; cancelling cuts the connection, so that the thread is free again."""
        errand = Errand()

        def run() -> _T:
            self._line.begin(errand)
            return work(*arguments)

        try:
            return await asyncio.wrap_future(self._thread.submit(run))
        except asyncio.CancelledError:
            self._line.cut(errand)
            raise

    async def _patiently(self, attempt: Callable[[], Awaitable[None]], progress: Callable[[], int]) -> None:
        """Try until it works; patience starts anew whenever ``progress`` has grown."""
        until, pause, reached = time.monotonic() + self._patience, _FIRST_PAUSE, progress()
        while True:
            try:
                return await attempt()
            except TransportError as error:
                if progress() > reached:
                    until, pause, reached = time.monotonic() + self._patience, _FIRST_PAUSE, progress()
                if time.monotonic() + pause > until:
                    text = f"the coordinator did not answer for {self._patience:g} s: {error.message}"
                    raise TransportError(text) from error
                logger.debug("trying again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _offset(answer: Answer) -> int:
    text = answer.headers.get(OFFSET, "")
    if not text.isascii() or not text.isdigit():
        raise DecodeError(f"{OFFSET} should be a count, got {text[:40]!r}")
    return int(text)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
