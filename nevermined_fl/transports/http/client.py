"""The participant's side of HTTPS: how does a request get through, however often the line drops?

Every call is tried again, with growing pauses, until ``patience`` seconds passed without progress; then TransportError.
Uploads and downloads go on where they stopped. The certificate is pinned: exactly the one given is trusted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from nevermined_fl.errors import DecodeError, RemoteProtocolError, SettingsError, TransportError
from nevermined_fl.files import BLOCK, sha256_file, size_of
from nevermined_fl.messages import MAX_MESSAGE_BYTES, Evaluate, Finish, Joined, Train, Verdict, Wait, decode, encode
from nevermined_fl.tokens import EVALUATED, REPORT
from nevermined_fl.transports.http.wire import ERROR, LENGTH, OFFSET, error_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from nevermined_fl.messages import Evaluated, JoinRequest, Message, Report, Task
    from nevermined_fl.tokens import JobKey

__all__ = ["HttpLink", "fingerprint_of", "pinned_context"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0
_PIECE = 256 * 1024


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
        patience: float = 60.0,
        limit: int = 2**40,
    ) -> None:
        self._key = key
        self._patience = patience
        self._limit = limit
        self._headers: dict[str, str] = {}
        transport = httpx.AsyncHTTPTransport(
            verify=context if context is not None else True, uds=None if uds is None else str(uds), trust_env=False
        )
        self._client = httpx.AsyncClient(
            base_url=url,
            transport=transport,
            timeout=httpx.Timeout(60.0, connect=10.0),
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        joined = await self._ask("POST", "/v1/join", Joined, content=encode(request))
        assert isinstance(joined, Joined)
        self._headers = {"Authorization": f"Bearer {joined.bearer}"}
        return joined

    async def next_task(self, *, after: int, wait: float) -> Task:
        """As SessionService.next_task."""
        task = await self._ask("GET", f"/v1/tasks?after={after}&wait={wait:g}", Wait, Train, Evaluate, Finish)
        assert isinstance(task, Wait | Train | Evaluate | Finish)
        return task

    async def fetch_model(self, digest: str, into: Path) -> None:
        """Download (resuming), check the digest, and rename into place."""
        part = into.with_name(f"{into.name}.part")

        async def attempt() -> None:
            try:
                await self._download(f"/v1/models/{digest}", part)
            except RemoteProtocolError as error:
                if not size_of(part):
                    raise
                part.unlink()  # what an earlier process left cannot be gone on with
                raise TransportError("the download starts anew") from error

        await self._patiently(attempt, lambda: size_of(part))
        if await asyncio.to_thread(sha256_file, part) != digest:
            part.unlink()
            raise DecodeError("the model is not what its digest names", code="digest")
        part.replace(into)

    async def send_update(self, *, round_number: int, digest: str, path: Path) -> None:
        """Upload (resuming where the coordinator has got to)."""
        url, size = f"/v1/rounds/{round_number}/updates/{digest}", size_of(path)
        reached = 0

        async def attempt() -> None:
            nonlocal reached
            headers, _ = await self._exchange("HEAD", url, headers={LENGTH: str(size)})
            reached = int(headers[OFFSET])
            if reached < size:
                more = {OFFSET: str(reached), LENGTH: str(size), "Content-Length": str(size - reached)}
                await self._exchange("PUT", url, headers=more, content=_pieces(path, reached))

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
        """Let go of connections."""
        await self._client.aclose()

    async def _verdict(self, url: str, signed: str) -> Verdict:
        verdict = await self._ask("POST", url, Verdict, content=signed.encode())
        assert isinstance(verdict, Verdict)
        return verdict

    async def _ask(self, method: str, url: str, *expected: type[Message], content: bytes = b"") -> Message:
        answer: bytes = b""

        async def attempt() -> None:
            nonlocal answer
            _, answer = await self._exchange(method, url, content=content)

        await self._patiently(attempt, lambda: 0)
        return decode(answer, *expected)

    async def _download(self, url: str, part: Path) -> None:
        start = size_of(part)
        async with self._stream("GET", url, headers={"Range": f"bytes={start}-"} if start else {}) as response:
            with part.open("ab" if response.status_code == 206 else "wb") as file:
                async for piece in response.aiter_raw():
                    if file.tell() + len(piece) > self._limit:
                        raise DecodeError(f"a model of this plan has at most {self._limit} bytes", code="size")
                    file.write(piece)

    async def _exchange(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: Any = b""
    ) -> tuple[httpx.Headers, bytes]:
        async with self._stream(method, url, headers=headers or {}, content=content) as response:
            return response.headers, await _read(response)

    @asynccontextmanager
    async def _stream(
        self, method: str, url: str, *, headers: Mapping[str, str], content: Any = b""
    ) -> AsyncIterator[httpx.Response]:
        """One exchange; httpx's errors become ours, and so do answers that say one."""
        try:
            merged = {**self._headers, **headers}
            async with self._client.stream(method, url, headers=merged, content=content) as response:
                if response.status_code == 409 and OFFSET in response.headers:
                    raise TransportError("the coordinator has got to another offset")
                if response.status_code >= 300:
                    body = await _read(response) or response.headers.get(ERROR, "").encode()
                    raise error_of(response.status_code, _object(body))
                yield response
        except httpx.RequestError as error:
            raise TransportError(f"{type(error).__name__}: {error}"[:200]) from error

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


async def _read(response: httpx.Response) -> bytes:
    """A small body; what is longer is not read."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_MESSAGE_BYTES:
            raise DecodeError(f"an answer has at most {MAX_MESSAGE_BYTES} bytes", code="too_large")
    return bytes(body)


async def _pieces(path: Path, start: int) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=BLOCK) as file:
        file.seek(start)
        while piece := file.read(_PIECE):
            yield piece


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
