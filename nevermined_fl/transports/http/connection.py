"""One keep-alive connection, for one worker thread: requests go out, answers come in, bodies go from file to wire and back.

Rule 1: a body is never held; what came is on disk, so that a cut line costs one block. Rule 2: an answer that comes before
the whole body was sent is read all the same, for it says why. Rule 3: an answer is as hostile as a request: sizes are
judged before anything is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import DecodeError, TransportError
from nevermined_fl.files import digest_of, size_of
from nevermined_fl.messages import MAX_MESSAGE_BYTES
from nevermined_fl.transports.http.wire import ERROR, OFFSET, error_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from nevermined_fl.transports.http.dialling import Line, Route

__all__ = ["Answer", "Connection"]

_BLOCK = 128 * 1024
"""What a cut line costs at most, and what stays in the processor's cache between wire, digest and disk."""
_SENDFILE = 1 << 30
_PATIENCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, read to its end."""

    status: int
    headers: HTTPMessage
    body: bytes


class Connection:
    """Dials when it must. Every method may raise TransportError, or what the answer says."""

    def __init__(self, route: Route, line: Line) -> None:
        self._route = route
        self._line = line
        self._http = _Http(route, line)
        self._block = memoryview(b"")

    def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """A request and its answer, both small."""
        with self._talk():
            self._head(method, url, headers, len(content), content)
            return self._answer()

    def upload(self, url: str, headers: Mapping[str, str], path: Path, start: int) -> Answer:
        """PUT a file from byte ``start`` on."""
        with self._talk(), path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            self._head("PUT", url, headers, size - start)
            failure: OSError | None = None
            reached = start
            try:
                reached = self._send(file.fileno(), start, size)
            except OSError as error:
                failure = error
            try:
                return self._answer()
            except (OSError, HTTPException) as error:
                raise failure or error from error
            finally:
                if reached < size:
                    self.close()  # the rest of the body would be taken for a request

    def download(self, url: str, headers: Mapping[str, str], into: Path, limit: int) -> str:
        """GET into a file, from its end on if it is there; the digest of the whole."""
        with self._talk():
            start = size_of(into)
            ranged = {"Range": f"bytes={start}-"} if start else {}
            self._head("GET", url, {**headers, **ranged}, 0)
            response = self._http.getresponse()
            try:
                if response.status >= 300:
                    _refuse(self._small(response))
                return self._save(response, into, start if response.status == 206 else 0, limit)
            finally:
                if not response.isclosed():
                    self.close()

    def close(self) -> None:
        """Let go of the socket; the next request dials again."""
        self._http.close()
        self._line.drop()

    @contextmanager
    def _talk(self) -> Iterator[None]:
        """What goes wrong on the way is a TransportError, and ends the connection."""
        try:
            if self._http.sock is not None and self._line.is_stale():
                self.close()
            yield
        except TransportError:
            self.close()
            raise
        except (OSError, HTTPException) as error:
            self.close()
            raise TransportError(f"{type(error).__name__}: {error}"[:200]) from error

    def _head(self, method: str, url: str, headers: Mapping[str, str], length: int, content: bytes = b"") -> None:
        self._http.putrequest(method, url, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name, value)
        if length or method in {"PUT", "POST"}:
            self._http.putheader("Content-Length", str(length))
        self._http.endheaders(content or None)

    def _answer(self) -> Answer:
        answer = self._small(self._http.getresponse())
        if answer.status >= 300 and not (answer.status == 409 and OFFSET in answer.headers):
            _refuse(answer)
        return answer

    def _small(self, response: HTTPResponse) -> Answer:
        """A small body; what is longer is not read."""
        try:
            body = response.read(MAX_MESSAGE_BYTES + 1)
            if len(body) > MAX_MESSAGE_BYTES:
                raise DecodeError(f"an answer has at most {MAX_MESSAGE_BYTES} bytes", code="too_large")
            if response.length:
                raise TransportError("the answer ended early")
            return Answer(response.status, response.headers, body)
        finally:
            if not response.isclosed():
                response.close()
                self.close()

    def _send(self, file: int, start: int, size: int) -> int:
        """Send until all is sent or an answer comes; where it got to."""
        sock = self._http.sock
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        while start < size:
            events = poll.poll(_PATIENCE_MS)
            if not events:
                raise TimeoutError("nothing could be sent for a minute")
            if events[0][1] & ~select.POLLOUT:
                break
            start += self._send_some(sock, file, start, size)
        return start

    def _send_some(self, sock: socket.socket, file: int, start: int, size: int) -> int:
        if not isinstance(sock, ssl.SSLSocket):
            try:
                return os.sendfile(sock.fileno(), file, start, min(size - start, _SENDFILE))
            except BlockingIOError:
                return 0
        block = self._buffer(size)[: min(_BLOCK, size - start)]
        count = os.preadv(file, [block], start)
        sock.sendall(block[:count])
        return count

    def _save(self, response: HTTPResponse, into: Path, start: int, limit: int) -> str:
        if response.length is None:
            raise DecodeError("a body was promised without its length", code="size")
        if start + response.length > limit:
            raise DecodeError(f"a model of this plan has at most {limit} bytes", code="size")
        block = self._buffer(response.length)
        with into.open("r+b" if start else "wb", buffering=0) as file:
            hasher = _digest_to(file.fileno(), start, block)
            while response.length:
                count = response.readinto(block[: min(len(block), response.length)])
                if not count:
                    raise TransportError("the body ended early")
                _write(file.fileno(), block[:count])
                hasher.update(block[:count])
        return digest_of(hasher)

    def _buffer(self, size: int) -> memoryview:
        if len(self._block) < min(size, _BLOCK):
            self._block = memoryview(bytearray(min(size, _BLOCK)))
        return self._block


class _Http(HTTPConnection):
    """The standard library's HTTP over a socket of ours."""

    def __init__(self, route: Route, line: Line) -> None:
        super().__init__(route.host, route.port)
        self._route = route
        self._line = line

    def connect(self) -> None:
        self.sock = self._line.dial(self._route)


def _refuse(answer: Answer) -> None:
    try:
        body = json.loads(answer.body or answer.headers.get(ERROR, ""))
    except (ValueError, RecursionError):
        body = {}
    raise error_of(answer.status, body if isinstance(body, dict) else {})


def _digest_to(file: int, end: int, block: memoryview) -> Any:
    """The running digest of what is there, read again; the file ends there from now on."""
    os.truncate(file, end)
    hasher, position = hashlib.sha256(), 0
    while position < end:
        count = os.preadv(file, [block[: min(len(block), end - position)]], position)
        hasher.update(block[:count])
        position += count
    os.lseek(file, end, os.SEEK_SET)
    return hasher


def _write(file: int, block: memoryview) -> None:
    while block:
        block = block[os.write(file, block) :]
