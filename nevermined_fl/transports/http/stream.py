"""A stream: a connection whose socket the event loop may lend to a thread, in which a large body goes to or from the disk.

asyncio's own transports keep their socket to themselves, and over TLS hand every byte through four buffers. Here small
messages are read and written by the loop as always; a body is moved by a thread, between the line and a block of its own
(docs/decisions/0015).

Rule 1: at any moment either the loop or one thread touches the socket, for OpenSSL allows no more. Rule 2: a socket that
is lent is not closed before it comes back: its number could be somebody else's by then.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from nevermined_fl.transports.http.tls import TlsSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor, Future

T = TypeVar("T")

__all__ = ["AGAIN", "Line", "Stream", "own_block"]

Line = socket.socket | TlsSocket
AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
"""What a line raises that can do nothing at the moment."""
_READ = 64 * 1024
_BLOCK = 1 << 20
_HIGH, _LOW = 128 * 1024, 32 * 1024
"""Bytes not yet sent at which the protocol is asked to pause, and to go on."""


class Stream(asyncio.Transport):
    """One accepted connection; ``start`` it after its handshake."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        names = {"peername": _name(sock.getpeername), "sockname": _name(sock.getsockname)}
        super().__init__({"socket": sock, "sslcontext": context} | names)
        self._loop = asyncio.get_running_loop()
        self._sock, self._handle = sock, sock.fileno()
        self._line: Line = sock if context is None else TlsSocket(sock, context)
        self._protocol: asyncio.Protocol = asyncio.Protocol()
        self._unsent = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._is_paused = True  # until there is a protocol
        self._is_lent = self._is_closing = self._is_over = self._has_paused_protocol = False
        self._reads = self._writes = False  # what the loop looks at

    async def handshake(self, seconds: float) -> None:
        """TLS's. Raises OSError or TimeoutError; the stream is closed then."""
        try:
            async with asyncio.timeout(seconds):
                while (ready := self._shake()) is not None:
                    await ready()
        except BaseException:
            self._is_closing = self._is_over = True
            self._sock.close()
            raise

    def start(self, protocol: asyncio.Protocol) -> None:
        """Let ``protocol`` have the connection."""
        self._protocol = protocol
        self._is_paused = False
        protocol.connection_made(self)
        self._watch()

    async def work(self, executor: Executor, do: Callable[..., T], *arguments: object) -> T:
        """``do(socket, *arguments)`` in a thread; who is cancelled cuts the connection and waits for the thread all the same.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        if self._is_closing or self._is_lent:
            raise ConnectionResetError("the connection is closed")
        future = executor.submit(do, self._line, *arguments)
        self._is_lent = True
        self._watch()
        future.add_done_callback(self._come_back)
        task = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.abort()
            while not task.done():  # what it works with must not go before it
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            raise

    async def readable(self) -> None:
        """Wait for bytes. Raises ConnectionResetError when the connection is closed here meanwhile."""
        if not self._is_over and self._has_more():
            return
        await self._ready(self._loop.add_reader, self._loop.remove_reader)

    async def writable(self) -> None:
        """Wait until bytes can be sent. Raises as ``readable``."""
        await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def flushed(self) -> None:
        """Wait until all that was written is sent. Raises as ``readable``."""
        while self._has_unsent():
            await self.writable()
            self._send_unsent()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who has what comes."""
        return self._protocol

    def is_reading(self) -> bool:
        """Whether the protocol gets what comes."""
        return not self._is_paused and not self._is_closing

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        self._is_paused = True
        self._watch()

    def resume_reading(self) -> None:
        """Let it come."""
        self._is_paused = False
        self._watch()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, or keep it until it can be sent."""
        if self._is_closing:
            return
        is_next = not self._unsent and not self._is_lent and self._waiting is None
        self._unsent += self._send_some(data) if is_next else data
        self._control_protocol()
        self._watch()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send them as one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connections."""
        return False

    def get_write_buffer_size(self) -> int:
        """Bytes not yet sent."""
        return len(self._unsent)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._is_closing

    def close(self) -> None:
        """Send what was written, and let go."""
        if not self._is_closing:
            self._is_closing = True
            self._give_up_waiting()
            self._watch()
            if not self._is_lent and not self._has_unsent():
                self._end(None)

    def abort(self) -> None:
        """Let go at once."""
        self._end(None)

    def _shake(self) -> Callable[[], Any] | None:
        if not isinstance(self._line, TlsSocket):
            return None
        try:
            self._line.do_handshake()
        except AGAIN:
            return self.readable
        return None

    def _watch(self) -> None:
        """Look at what the state says that should be looked at."""
        if self._is_over:
            return
        is_ours = not self._is_lent and self._waiting is None
        reads = is_ours and not self._is_paused and not self._is_closing
        writes = is_ours and self._has_unsent()
        if reads and not self._reads:
            self._loop.add_reader(self._handle, self._read)
            if self._has_more():
                self._loop.call_soon(self._read_rest)
        elif self._reads and not reads:
            self._loop.remove_reader(self._handle)
        if writes and not self._writes:
            self._loop.add_writer(self._handle, self._send_unsent)
        elif self._writes and not writes:
            self._loop.remove_writer(self._handle)
        self._reads, self._writes = reads, writes

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        if self._is_closing:
            raise ConnectionResetError("the connection is closed")
        self._waiting = waiting = self._loop.create_future()
        self._watch()
        add(self._handle, _tell, waiting)
        try:
            await waiting
        finally:
            self._waiting = None
            if not self._is_over:
                remove(self._handle)
                self._watch()

    def _read(self) -> None:
        try:
            data = self._line.recv(_READ)
        except AGAIN:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
            self._read_soon()
        else:
            self._protocol.eof_received()
            self.close()

    def _read_soon(self) -> None:
        """Read what no selector sees, when it is the others' turn no more."""
        if self._reads and self._has_more():
            self._loop.call_soon(self._read_rest)

    def _read_rest(self) -> None:
        if self._reads and self._has_more():
            self._read()

    def _has_more(self) -> bool:
        return isinstance(self._line, TlsSocket) and self._line.pending()

    def _has_unsent(self) -> bool:
        return bool(self._unsent) or (isinstance(self._line, TlsSocket) and self._line.unsent())

    def _send_unsent(self) -> None:
        rest = self._send_some(bytes(self._unsent))
        del self._unsent[: len(self._unsent) - len(rest)]
        self._control_protocol()
        if self._is_closing and not self._has_unsent():
            self._end(None)
        self._watch()

    def _send_some(self, data: bytes | bytearray | memoryview) -> memoryview:
        """As much as the socket takes; the rest."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._line.send(rest) :]
            if isinstance(self._line, TlsSocket):
                self._line.flush()
        except AGAIN:
            pass
        except OSError as error:
            self._end(error)
            return memoryview(b"")
        return rest

    def _control_protocol(self) -> None:
        if not self._has_paused_protocol and len(self._unsent) > _HIGH:
            self._has_paused_protocol = True
            self._protocol.pause_writing()
        elif self._has_paused_protocol and len(self._unsent) <= _LOW:
            self._has_paused_protocol = False
            self._protocol.resume_writing()

    def _come_back(self, done: Future[Any]) -> None:
        """Called in the thread."""
        with suppress(RuntimeError):  # the loop is closed, and so is everything
            self._loop.call_soon_threadsafe(self._returned)

    def _returned(self) -> None:
        self._is_lent = False
        if self._is_over:
            self._release()
        elif self._is_closing and not self._has_unsent():
            self._end(None)
        else:
            self._watch()

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_closing = True
        self._unsent.clear()
        self._loop.remove_reader(self._handle)
        self._loop.remove_writer(self._handle)
        self._is_over = True
        self._give_up_waiting()
        if self._is_lent:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        else:
            self._release()
        self._loop.call_soon(self._protocol.connection_lost, error)

    def _give_up_waiting(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("the connection is closed"))

    def _release(self) -> None:
        if isinstance(self._line, TlsSocket):
            self._line.goodbye()
        self._sock.close()


class _Own(threading.local):
    def __init__(self) -> None:
        self.block = memoryview(bytearray(_BLOCK))


_own = _Own()


def own_block() -> memoryview:
    """The calling thread's block, for the body that it is moving; kept for the next one."""
    return _own.block


def _name(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError:
        return None


def _tell(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
