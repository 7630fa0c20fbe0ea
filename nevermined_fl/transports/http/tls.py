"""TLS over a non-blocking socket, such that no call ever goes through more than a bounded piece of the line.

``ssl.SSLSocket`` reads on for as long as nothing but TLS's own messages come: a stranger who sends a million of them keeps
the reader busy for half a minute, in one call. Here OpenSSL sees what one ``recv`` brought. Rule 1: who sends much that
carries nothing is cut off. Rule 2: what is encrypted but not sent is bounded, too.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

__all__ = ["TlsSocket"]

_PIECE = 64 * 1024
"""Bytes of one ``recv``, and of what is encrypted at once."""
_LARGE_PIECE = 128 * 1024
"""The same for whoever moves so much at once: a thread, which holds up nobody."""
_MOST_NOISE = 64 * 1024
"""Bytes that may come beyond twice what they carry: certificates and headers of records are far less."""


class TlsSocket:
    """The server's end of one connection, for one caller at a time; as a socket it raises BlockingIOError, or SSLWantReadError."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._rest = memoryview(b"")  # encrypted, and not sent yet
        self._noise = 0
        self._has_more = False

    def fileno(self) -> int:
        """The socket's."""
        return self._sock.fileno()

    def pending(self) -> bool:
        """Whether there may be something to read that no selector sees."""
        return self._has_more

    def unsent(self) -> bool:
        """Whether something accepted is not sent yet."""
        return bool(self._rest) or self._out.pending > 0

    def do_handshake(self) -> None:
        """Go on with the handshake; to be called again when the socket is readable."""
        self._has_more = False
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._answer()
            self._fetch()
            self._tls.do_handshake()
        finally:
            self._answer()
        self._has_more = self._in.pending > 0

    def recv(self, size: int) -> bytes:
        """At least a byte; none at the end."""
        block = memoryview(bytearray(min(size, _PIECE)))
        return bytes(block[: self.recv_into(block)])

    def recv_into(self, block: memoryview) -> int:
        """At least a byte, and as much as one ``recv`` of the socket brought; 0 at the end."""
        try:
            count = self._read(block)
        except ssl.SSLWantReadError:
            self._fetch(len(block))
            count = self._read(block)
        count += self._read_on(block[count:]) if count else 0
        self._noise = max(0, self._noise - 2 * count)
        return count

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes were accepted; ``flush`` until nothing is unsent."""
        self.flush()
        view, count = memoryview(data)[:_LARGE_PIECE], 0
        while count < len(view):
            count += self._tls.write(view[count:])  # a record at a time
        with suppress(BlockingIOError):
            self.flush()
        return count

    def flush(self) -> None:
        """Send what was accepted."""
        while self.unsent():
            if not self._rest:
                self._rest = memoryview(self._out.read())
            self._rest = self._rest[self._sock.send(self._rest) :]

    def goodbye(self) -> None:
        """Say that nothing more will come, if that can be said at once."""
        with suppress(OSError, ValueError):
            self._tls.unwrap()
        with suppress(OSError):
            self.flush()

    def _read(self, block: memoryview) -> int:
        self._has_more = False
        try:
            count = self._tls.read(len(block), block)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0
        finally:
            if self._out.pending or self._rest:
                self._answer()
        self._has_more = True
        return int(count)

    def _read_on(self, block: memoryview) -> int:
        """Further records that are here already: one call for each would cost more than to decrypt it."""
        count = 0
        while self._in.pending and count < len(block):
            try:
                more = self._read(block[count:])
            except ssl.SSLWantReadError:
                break
            if not more:
                break  # the end, which the next call says
            count += more
        return count

    def _fetch(self, wanted: int = _PIECE) -> None:
        if self._noise > _MOST_NOISE:
            raise ConnectionAbortedError("too much on this connection carries nothing")
        raw = self._sock.recv(max(_PIECE, min(wanted, _LARGE_PIECE)))
        if raw:
            self._in.write(raw)
        else:
            self._in.write_eof()
        self._noise += len(raw)

    def _answer(self) -> None:
        """What OpenSSL itself has to say; who does not take it is cut off. Whoever has gone may have said something before."""
        with suppress(OSError):
            self.flush()
        if self._out.pending > _PIECE:
            raise ConnectionAbortedError("the peer does not take answers")
