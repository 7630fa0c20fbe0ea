"""A network of one's own: a namespace with nothing but a loopback, whose counters nobody else moves."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

_MARK = "NEVERMINED_FL_PRIVATE_NETWORK"
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


def enter_private_network() -> bool:
    """Start this program again in a namespace of its own, if the machine lets us; whether we are in one."""
    if os.environ.get(_MARK) == "1":
        _raise_loopback()
        return True
    unshare = shutil.which("unshare")
    for flags in ("-n", "-rn"):  # root may by itself; others need a user namespace
        if unshare and not subprocess.run([unshare, flags, "true"], capture_output=True, check=False).returncode:
            os.environ[_MARK] = "1"
            os.execv(unshare, [unshare, flags, *_this_program()])
    return False


def is_private() -> bool:
    """Whether this process has a loopback of its own."""
    return os.environ.get(_MARK) == "1"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _this_program() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        name, flags = struct.unpack("16sh", fcntl.ioctl(probe, _GET_FLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(probe, _SET_FLAGS, struct.pack("16sh", name, flags | _UP))
