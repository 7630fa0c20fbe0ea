"""Run: one job's runner as its launcher holds it: by a named pipe, so that another launcher can take hold of it.

The runner reads orders from the pipe ``lifeline`` and writes down beside it who it is and, at last, how the job ended
(``runner.json``). A launcher that is killed lets go of the pipe; the next one takes hold of it, or reads what became of
the job meanwhile. So no job is started twice, and none ends with the launcher that happened to start it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LIFELINE", "NOTE", "Run", "find", "prepare"]

LIFELINE = "lifeline"
NOTE = "runner.json"
_LOST = -signal.SIGKILL
_MOST_BYTES = 4096


@dataclass(slots=True)
class Run:
    """A job that was started; ``popen`` is its runner when this very process started it, ``fd`` its lifeline."""

    folder: Path
    fd: int
    started: float
    popen: subprocess.Popen[bytes] | None = None
    finished: float | None = None
    ended: int | None = None

    def code(self) -> int | None:
        """The runner's exit code, negative when somebody killed it; None while it runs."""
        if self.ended is None:
            found = self.popen.poll() if self.popen else self._noted()
            if found is not None:
                self._let_go(found)
        return self.ended

    def end(self, *, grace: float) -> None:
        """Order the job's end: its own process is asked to, and everything killed after ``grace`` seconds."""
        if self.ended is None:
            with suppress(OSError):
                os.write(self.fd, f"stop {grace:.3f}\n".encode())

    def wait(self, seconds: float) -> bool:
        """Whether it is over within so many seconds."""
        deadline = time.monotonic() + seconds
        while self.code() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(left) if self.popen else self._hang_up(left)
        return True

    def kill(self) -> None:
        """Kill the runner itself, and with it, as far as the kernel sees to it, its job."""
        pid = self.popen.pid if self.popen else _read(self.folder / NOTE).get("pid", 0)
        if self.code() is None and pid > 1:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _noted(self) -> int | None:
        if not self._hang_up(0):
            return None
        code = _read(self.folder / NOTE).get("code")
        return code if isinstance(code, int) else _LOST

    def _hang_up(self, seconds: float) -> bool:
        """Whether nobody reads the lifeline any more, at the latest after so many seconds."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(max(seconds, 0) * 1000))

    def _let_go(self, code: int) -> None:
        self.ended, self.finished = code, time.time()
        if self.fd >= 0:
            os.close(self.fd)
        # Told once: what is submitted after this is a new attempt.
        for name in (NOTE, LIFELINE):
            (self.folder / name).unlink(missing_ok=True)


def prepare(folder: Path) -> tuple[int, int]:
    """Make a new lifeline in ``folder``: the runner's end, which it inherits, and ours."""
    for name in (NOTE, LIFELINE):
        (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / LIFELINE, 0o600)
    reader = os.open(folder / LIFELINE, os.O_RDONLY | os.O_NONBLOCK)
    return reader, os.open(folder / LIFELINE, os.O_WRONLY | os.O_NONBLOCK)


def find(folder: Path) -> Run | None:
    """The run that an earlier launcher left in ``folder``, still going or over; None when there is none."""
    note = _read(folder / NOTE)
    started = float(note.get("started", time.time()))
    if isinstance(code := note.get("code"), int):
        run = Run(folder, -1, started)
        run._let_go(code)  # noqa: SLF001  of our own class
        return run
    try:
        fd = os.open(folder / LIFELINE, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it, or it was never made
        return None
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return Run(folder, fd, started)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()[:_MOST_BYTES])
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
