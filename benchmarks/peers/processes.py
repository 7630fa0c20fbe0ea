"""A peer's processes: found by a mark in their environment, whoever started them, and ended by it."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "NEVERMINED_FL_PEER"
_FRESH = 0.5
"""Seconds for which a list of pids is good."""


class Marked:
    """All processes that inherited one mark, split by what stands on their command lines."""

    def __init__(self, mark: str, *, server: str, client: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._server, self._client = re.compile(server), re.compile(client)
        self._seen, self._found = 0.0, {}

    def environment(self) -> dict[str, str]:
        """What the first process needs; the others inherit it."""
        name, _, value = self._mark.decode().partition("=")
        return {name: value}

    def servers(self) -> list[int]:
        """Pids of the server's processes."""
        return [pid for pid, command in self._alive().items() if self._server.search(command)]

    def clients(self) -> list[int]:
        """Pids of the clients' processes."""
        return [pid for pid, command in self._alive().items() if self._client.search(command)]

    def end(self) -> None:
        """Kill them all: our own children and theirs, by pid."""
        for _ in range(20):
            self._seen = 0.0
            if not (pids := list(self._alive())):
                return
            for pid in pids:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def _alive(self) -> dict[int, str]:
        if time.monotonic() - self._seen > _FRESH:
            self._found = {pid: command for pid, command in _processes(self._mark) if pid != os.getpid()}
            self._seen = time.monotonic()
        return self._found


@contextmanager
def marked(mark: str, *, server: str, client: str) -> Iterator[Marked]:
    """A peer whose processes do not outlive the block."""
    found = Marked(mark, server=server, client=client)
    try:
        yield found
    finally:
        found.end()


def _processes(mark: bytes) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
