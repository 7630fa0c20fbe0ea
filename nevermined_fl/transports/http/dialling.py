"""Dialling: one blocking socket to the coordinator, by TCP, by a unix socket, or through a proxy; with TLS or, in tests, without.

Whoever waits in a socket can be interrupted from another thread: ``Line.cut`` shuts it down.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl.errors import TransportError
from nevermined_fl.transports.http import proxy as tunnel

if TYPE_CHECKING:
    import ssl

    from nevermined_fl.transports.http.proxy import Proxy

__all__ = ["Errand", "Line", "Route"]

_DIAL_SECONDS = 10.0
_SILENCE = 60.0
"""Seconds without a byte after which the other side counts as gone; longer than a request for a task is held."""
_WINDOW = 3 << 20
"""Bytes that may be on the way to us from the beginning: with less, whoever sends a model waits for us all the time."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


@dataclass(frozen=True, slots=True)
class Route:
    """How the coordinator is reached: ``uds`` is a relay's socket, ``proxy`` takes CONNECT, else it is dialled directly."""

    host: str
    port: int
    context: ssl.SSLContext | None
    uds: Path | None = None
    proxy: Proxy | None = None


class Errand:
    """One piece of work on a line; it is cut by itself, so that the next one is not cut in its place."""

    __slots__ = ("is_cut",)

    def __init__(self) -> None:
        self.is_cut = False


class Line:
    """The socket of a worker thread, and another thread's means to end the waiting in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._errand = Errand()

    def dial(self, route: Route) -> socket.socket:
        """A connected socket. Raises OSError or TransportError."""
        kind = socket.AF_UNIX if route.uds else _family(_first_hop(route))
        sock = self._hold(socket.socket(kind, socket.SOCK_STREAM))
        sock.settimeout(_DIAL_SECONDS)
        if route.uds:
            _connect_unix(sock, route.uds)
        else:
            _connect_tcp(sock, _first_hop(route))
        if route.proxy is not None and not route.uds:
            _open_tunnel(sock, route)
        if route.context is not None:
            # Without the handshake first: a socket that nobody holds cannot be cut.
            secure = route.context.wrap_socket(sock, server_hostname=route.host, do_handshake_on_connect=False)
            self._hold(secure)
            secure.do_handshake()
            sock = secure
        sock.settimeout(_SILENCE)
        return sock

    def begin(self, errand: Errand) -> None:
        """In the worker thread: what follows is done for this errand. Raises TransportError when it was cut already."""
        with self._lock:
            self._errand = errand
            _refuse_cut(errand)

    def cut(self, errand: Errand) -> None:
        """In another thread: end what waits for this errand, and what would wait next."""
        with self._lock:
            errand.is_cut = True
            if self._errand is errand and self._socket is not None:
                with suppress(OSError):
                    # The plain socket's method: an SSLSocket's own would change it under its user.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close the socket, if there is one."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def is_stale(self) -> bool:
        """Whether the idle socket was closed by the other side, or says what nobody asked."""
        sock = self._socket
        if sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def _hold(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            if self._socket is not None and self._socket is not sock:
                self._socket.close()
            self._socket = sock
            _refuse_cut(self._errand)
        return sock


def _refuse_cut(errand: Errand) -> None:
    if errand.is_cut:
        raise TransportError("interrupted")


def _first_hop(route: Route) -> tuple[str, int]:
    return (route.proxy.host, route.proxy.port) if route.proxy else (route.host, route.port)


def _family(place: tuple[str, int]) -> int:
    return int(socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[0][0])


def _connect_tcp(sock: socket.socket, place: tuple[str, int]) -> None:
    sock.connect(place)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    # To wait for so much the kernel makes room for it, and keeps that; asking for a buffer would end its own tuning.
    for level in (_WINDOW, 1):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, level)


def _connect_unix(sock: socket.socket, path: Path) -> None:
    """A socket's address has at most 107 bytes; the folder's number is shorter than its name."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        sock.connect(short if Path(f"/proc/self/fd/{folder}").is_dir() else str(path))
    finally:
        os.close(folder)


def _open_tunnel(sock: socket.socket, route: Route) -> None:
    sock.sendall(tunnel.request(route.host, route.port))
    answer = bytearray()
    while not answer.endswith(tunnel.END):
        # Byte by byte: what follows the answer belongs to the tunnel.
        byte = sock.recv(1)
        answer += byte
        if not byte or len(answer) > tunnel.LONGEST_ANSWER:
            raise TransportError("the proxy's answer has no end")
    tunnel.judge(bytes(answer))
