"""Runner: how does one job run so that nothing of it outlives its launchers for long?

Started by file path with ``python -I -S``, so only the standard library. Standard input brings one line of JSON (the
order). A named pipe, the lifeline, brings what comes later: ``stop SECONDS`` asks the job's own process to end and kills
everything after so long. When nobody holds the lifeline's other end the launcher is gone: another one may take hold of
it within ``orphan_seconds``, else everything dies. A pipe rather than PR_SET_PDEATHSIG alone, because that signal comes
when the *thread* that forked ends (prctl(2)), and cannot be taken back.

Rule 1: single-threaded, so that fork and exec with code in between is safe.
Rule 2: a subreaper, so that a job's orphans come back here to be killed, however often they forked.
Rule 3: how the job ended is written down before the lifeline is let go.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["OWN_FAILURE", "main"]

OWN_FAILURE = 125
"""Exit code that says: the runner failed, not the job."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WATCH_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run the ordered job; the exit code is the job's, 128 + signal when it was killed."""
    order = _read_order()
    lifeline = _Lifeline(order)
    note = {"pid": os.getpid(), "started": time.time()}
    _write_note(order, note)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    output = _Output(Path(order["output"]), order["output_bytes"])
    reader, writer = os.pipe()
    child = _spawn(order, writer)
    os.close(writer)
    os.set_blocking(reader, False)
    code = _attend(child, (reader, wakeup), lifeline, output, order)
    _kill_all(child)
    output.drain(reader)
    _write_note(order, note | {"code": code})
    return code


def _read_order() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 65536)
        if not block:
            raise SystemExit(OWN_FAILURE)
        line += block
    order: dict[str, Any] = json.loads(line)
    return order


def _write_note(order: dict[str, Any], note: dict[str, Any]) -> None:
    """Whole or not at all; a full disk must not end the job."""
    path = Path(order["note"])
    with suppress(OSError):
        part = path.with_suffix(".part")
        part.write_text(json.dumps(note))
        part.replace(path)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _spawn(order: dict[str, Any], output: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(OWN_FAILURE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name, limit in order["rlimits"].items():
            _limit(getattr(resource, name), limit)
        os.umask(0o077)
        os.chdir(order["cwd"])
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606  the point of this module
    except OSError as error:
        os.write(2, f"[runner] cannot start: {error}\n".encode())
    finally:
        os._exit(OWN_FAILURE)


def _limit(kind: int, limit: int) -> None:
    # A hard limit can only be lowered; containers often run without CAP_SYS_RESOURCE.
    hard = resource.getrlimit(kind)[1]
    ceiling = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (ceiling, ceiling))


def _attend(child: int, pipes: tuple[int, int], lifeline: _Lifeline, output: _Output, order: dict[str, Any]) -> int:
    """Wait for the child's end, an order to end it, or a limit; copy output meanwhile. ``pipes``: output and signals."""
    (reader, wakeup), waiting = pipes, set(pipes)
    watched, deadline = time.monotonic(), math.inf
    while True:
        soon = max(min(_WATCH_SECONDS, deadline - time.monotonic()), 0)
        ready = select.select(waiting | lifeline.held(), (), (), soon)[0]
        if reader in ready and not output.copy(reader):
            waiting.discard(reader)
        signals = os.read(wakeup, 4096) if wakeup in ready else b""
        grace = 0.0 if signal.SIGTERM in signals else lifeline.wants_end()
        if grace:
            _ask_to_end(child, wrapped=order["wrapped"])
        if grace is not None:
            deadline = min(deadline, time.monotonic() + grace)
        code = _reap(child)
        if code is not None:
            return code
        if time.monotonic() >= deadline:
            output.note("stopped")
            return 128 + signal.SIGKILL
        if time.monotonic() - watched >= _WATCH_SECONDS:
            watched = time.monotonic()
            if excess := _excess(order):
                output.note(f"killed: {excess}")
                return 128 + signal.SIGKILL


def _ask_to_end(child: int, *, wrapped: bool) -> None:
    """SIGTERM to the job's own process alone: what it started is its own to end, and what is left is killed.

    bubblewrap is two processes around it, of which the outer would kill it and the inner ignores the signal.
    """
    pid = child
    for _ in range(2 if wrapped else 0):
        below = _children(pid)
        if not below:
            return  # it is about to start or to end
        pid = below[0]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def _reap(child: int) -> int | None:
    """Collect whoever ended; the child's exit code when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _excess(order: dict[str, Any]) -> str:
    """Which limit the whole tree of processes is above; rlimits hold for one process each, and not for root's number."""
    tree = _descendants()
    memory = cpu = 0.0
    for pid in tree:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        except (OSError, ValueError):
            continue
        memory += _memory(status)
        cpu += sum(map(int, times)) / _TICKS
    if len(tree) > order["processes"]:
        return f"{len(tree)} processes; at most {order['processes']} are allowed"
    if memory > order["memory"]:
        return f"{memory:.0f} bytes of memory; at most {order['memory']} are allowed"
    if cpu > order["cpu_seconds"]:
        return f"{cpu:.0f} s of CPU time; at most {order['cpu_seconds']} are allowed"
    return ""


def _memory(status: str) -> int:
    """Bytes that a process holds, from its /proc/…/status.

    Files that are mapped do not count, for they can be dropped; memory that is shared does, in each process that maps
    it: anonymous memory that is mapped as shared would else be free.
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in fields)


def _descendants() -> list[int]:
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        children = _children(pending.pop())
        found += children
        pending += children
    return found


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    if Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return [int(child) for path in tasks.glob("*/children") for child in _read(path).split()]
    # A kernel without CONFIG_PROC_CHILDREN: ask every process for its parent.
    stats = [_read(path) for path in Path("/proc").glob("[0-9]*/stat")]
    return [int(stat.split(" ", 1)[0]) for stat in stats if stat.rpartition(")")[2].split()[1:2] == [str(pid)]]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended
        return ""


def _kill_all(child: int) -> None:
    """Kill until nobody is left: as the subreaper, every orphan becomes a child of ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while True:
        for pid in _descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


class _Lifeline:
    """The named pipe whose other end the launcher holds."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.fd = int(order["lifeline"])  # from birth, so that nobody finds it without a reader
        os.set_inheritable(self.fd, False)
        self.patience = float(order["orphan_seconds"])
        self.since = math.inf
        self.text = b""

    def held(self) -> set[int]:
        """What to wait on. A pipe without a launcher is readable all the time, so then it is looked at now and then."""
        return {self.fd} if self.since == math.inf else set()

    def wants_end(self) -> float | None:
        """In how many seconds everything shall be over; None while nobody wants that."""
        try:
            block = os.read(self.fd, 4096)
        except BlockingIOError:
            self.since = math.inf
            return None
        if not block:
            self.since = min(self.since, time.monotonic())
            return 0.0 if time.monotonic() - self.since >= self.patience else None
        self.since = math.inf
        *lines, self.text = (self.text + block).split(b"\n")
        seconds = [float(line.split()[1]) for line in lines if line.startswith(b"stop ")]
        return min(seconds, default=None)


class _Output:
    """The job's raw output in a file of bounded size: when it is half full, it becomes ``<name>.1`` and a new one starts."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.half = limit // 2
        self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def write(self, block: bytes) -> None:
        if self.size + len(block) > self.half:
            os.close(self.fd)
            self.path.replace(f"{self.path}.1")
            self._open()
        self.size += os.write(self.fd, block)

    def note(self, text: str) -> None:
        self.write(f"[runner] {text}\n".encode())

    def copy(self, reader: int) -> bool:
        """Copy what is there; False at the end."""
        try:
            block = os.read(reader, 65536)
        except BlockingIOError:
            return True
        self.write(block)
        return bool(block)

    def drain(self, reader: int) -> None:
        """Copy what is left after everybody died."""
        while self.copy(reader) and select.select((reader,), (), (), 0)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main())
