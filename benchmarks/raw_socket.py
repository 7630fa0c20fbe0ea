"""The same bytes as a round, over plain TCP sockets and nothing else: what no federation can be faster than.

The server has a thread per connection, as it should be: receiving and sending let go of the interpreter. Each client
reads a model and sends one back; the clock runs from the moment at which all are connected until all is received.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from multiprocessing import get_context
from statistics import median

from benchmarks.measure import loopback_bytes

_PIECE = 1 << 20
_REPEATS = 4
_PROCESSES = 10


def transfer(size: int, clients: int) -> tuple[float, float]:
    """``clients`` fetch ``size`` bytes each and send as many back.

    Returns the median of the seconds after a warm-up, and what crossed the loopback per byte of these.
    """
    block = memoryview(os.urandom(min(size, 32 * _PIECE)))
    spawn = get_context("spawn")
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as server:
        port, processes = server.getsockname()[1], min(clients, _PROCESSES)
        shares = [clients // processes + (place < clients % processes) for place in range(processes)]
        children = [spawn.Process(target=_clients, args=(port, size, share), daemon=True) for share in shares]
        for child in children:
            child.start()
        connections = [server.accept()[0] for _ in range(clients)]
        before = loopback_bytes()
        took = [_exchange(connections, block, size) for _ in range(1 + _REPEATS)]
        crossed = loopback_bytes() - before
        for connection in connections:
            connection.close()
        for child in children:
            child.join()
    return median(took[1:]), crossed / (2 * size * clients * len(took))


def _exchange(connections: list[socket.socket], block: memoryview, size: int) -> float:
    began = time.perf_counter()
    threads = [threading.Thread(target=_serve, args=(connection, block, size)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _serve(connection: socket.socket, block: memoryview, size: int) -> None:
    _send(connection, block, size)
    _receive(connection, size)


def _clients(port: int, size: int, count: int) -> None:
    threads = [threading.Thread(target=_client, args=(port, size)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _client(port: int, size: int) -> None:
    block = memoryview(os.urandom(min(size, 32 * _PIECE)))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while _receive(connection, size):
            _send(connection, block, size)


def _send(connection: socket.socket, block: memoryview, size: int) -> None:
    while size:
        connection.sendall(block[:size])
        size -= min(size, len(block))


def _receive(connection: socket.socket, size: int) -> bool:
    """Whether as much came; not when the other side has closed."""
    buffer = bytearray(min(size, _PIECE))
    while size:
        count = connection.recv_into(buffer, min(size, len(buffer)))
        if not count:
            return False
        size -= count
    return True
