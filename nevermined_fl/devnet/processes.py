"""Which processes run below another one, what are they, and do they listen?

Read from /proc, so that the answer does not depend on what the processes say about themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["alive", "children_of", "command_line", "descendants", "kill_all", "listening_sockets", "start_ticks"]

_PROC = Path("/proc")
_TCP_LISTEN = "0A"


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when there is none. Tells a reused pid from the old one."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def alive(pid: int, ticks: int) -> bool:
    """Whether the very process that had this pid and start still runs (a zombie does not)."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z" and int(fields[19]) == ticks


def children_of(pid: int) -> tuple[int, ...]:
    """Pids whose parent is ``pid``, zombies excepted."""
    return tuple(child for child, parent in _parents().items() if parent == pid)


def descendants(*pids: int) -> tuple[int, ...]:
    """Pids below any of ``pids``, parents before children."""
    parents = _parents()
    found: list[int] = []
    front = set(pids)
    while front:
        front = {child for child, parent in parents.items() if parent in front}
        found += sorted(front)
    return tuple(found)


def command_line(pid: int) -> tuple[str, ...]:
    """The process's argv; empty when it is gone."""
    try:
        return tuple((_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
    except OSError:
        return ()


def listening_sockets(pid: int) -> int:
    """How many TCP sockets of the process listen, in whatever network namespace it lives."""
    held = _sockets(pid)
    return len(held & _listening(pid)) if held else 0


def kill_all(pids: tuple[int, ...]) -> None:
    """Kill these processes at once; those that are gone already are none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    # The name, in parentheses, may hold anything: what follows the last one is safe to split.
    return text[text.rindex(")") + 2 :].split()


def _parents() -> dict[int, int]:
    stats = {int(name): _stat(int(name)) for name in _names(_PROC) if name.isdigit()}
    return {pid: int(fields[1]) for pid, fields in stats.items() if fields and fields[0] != "Z"}


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _sockets(pid: int) -> set[str]:
    folder = _PROC / str(pid) / "fd"
    found: set[str] = set()
    for name in _names(folder):
        with contextlib.suppress(OSError):
            target = str((folder / name).readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def _listening(pid: int) -> set[str]:
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = (_PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
            found |= {row.split()[9] for row in rows if row.split()[3] == _TCP_LISTEN}
    return found
