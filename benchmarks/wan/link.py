"""A slow link: two network namespaces joined by a pair of interfaces, each sending 100 Mbit/s at most (token bucket).

The server and the delay proxy are on our side, the clients on the far one. Needs root, ``ip``, ``tc`` and ``nsenter``.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAR = "10.77.0.1"
_FAR = "10.77.0.2"
_NAME = "near0"


@contextmanager
def slow_link(rate: str) -> Iterator[list[str]]:
    """Yields the words before a command that is to run on the far side."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "7200"], stdin=subprocess.DEVNULL)
    try:
        _wait_until_apart(holder.pid)
        enter = ["nsenter", "-t", str(holder.pid), "-n"]
        _run(["ip", "link", "add", _NAME, "type", "veth", "peer", "name", "far0", "netns", str(holder.pid)])
        _raise([], _NAME, NEAR, rate)
        _raise(enter, "far0", _FAR, rate)
        yield enter
    finally:
        holder.kill()  # the pair of interfaces goes with its namespace
        holder.wait()


def crossed_bytes() -> int:
    """Bytes that crossed the link so far, both ways."""
    [line] = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith(f"{_NAME}:")]
    numbers = line.split(":")[1].split()
    return int(numbers[0]) + int(numbers[8])


def _raise(enter: list[str], name: str, address: str, rate: str) -> None:
    _run([*enter, "ip", "address", "add", f"{address}/24", "dev", name])
    _run([*enter, "ip", "link", "set", name, "up"])
    bucket = ["rate", rate, "burst", "128kb", "latency", "200ms"]
    _run([*enter, "tc", "qdisc", "add", "dev", name, "root", "tbf", *bucket])


def _wait_until_apart(pid: int) -> None:
    mine = Path("/proc/self/ns/net").readlink()
    for _ in range(200):
        if Path(f"/proc/{pid}/ns/net").readlink() != mine:
            return
        time.sleep(0.02)
    raise TimeoutError("unshare gave no namespace")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
