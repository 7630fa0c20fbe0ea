"""Which TCP ports are free on this machine?"""

from __future__ import annotations

import secrets
import socket
from contextlib import closing

from nevermined_fl.errors import SettingsError

__all__ = ["free_ports", "is_listening"]

# Below Linux's range of ephemeral ports: a client's outgoing connection cannot take a port between the test and its use.
_LOW, _HIGH = 21000, 32000


def free_ports(count: int, *, host: str = "127.0.0.1") -> tuple[int, ...]:
    """``count`` consecutive ports, each tested by binding it.

    Raises:
        SettingsError: no such run of ports was found.
    """
    for _ in range(200):
        first = _LOW + secrets.randbelow(_HIGH - _LOW - count)
        if all(_is_free(host, port) for port in range(first, first + count)):
            return tuple(range(first, first + count))
    raise SettingsError(f"no {count} free ports between {_LOW} and {_HIGH} on {host}", hint="stop what uses them")


def is_listening(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def _is_free(host: str, port: int) -> bool:
    with closing(socket.socket()) as probe:
        # As servers do: a port whose last connection is in TIME_WAIT is free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
