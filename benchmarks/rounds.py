"""One session with real processes: ``python -m coordinator_image`` itself (or the same without TLS) and real participants."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure, raw_socket
from benchmarks.market import AdmissionServer, Market
from benchmarks.watch import POLL, BenchmarkFailed, Watch
from benchmarks.work import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.jobs import Jobs
    from benchmarks.work import Work

_LONGEST = 1800.0


def measure_rounds(work: Work, *, scratch: Path | None = None, raw: bool = False) -> dict[str, Any]:
    """Run the session; the line that is printed.

    Args:
        work: what to do.
        scratch: where the folders go; the system's temporary folder when not given.
        raw: transfer the same bytes over raw sockets, too, for the ratio.
    """
    _check_room(work, scratch)
    before = measure.load()
    with tempfile.TemporaryDirectory(prefix="nevermined-fl-bench-", dir=scratch) as folder:
        market = Market(work.clients)
        jobs = lay_out(work, market, Path(folder))
        os.sync()  # what was prepared is not written out during the rounds
        sockets = raw_socket.transfer(work.params * 4, work.clients) if raw else None
        with AdmissionServer(market, jobs.coordinator / "admission.sock"):
            found = _run(work, jobs)
    line = {"params": work.params, "clients": work.clients, "tls": work.tls, **found, "load": before}
    if sockets is not None:
        seconds, wire = sockets
        line |= {"raw_socket_s": round(seconds, 4), "raw_socket_wire_ratio": round(wire, 4)}
        line |= {"ratio_to_raw": round(found["round_s"] / seconds, 2)}
    return line


def _run(work: Work, jobs: Jobs) -> dict[str, Any]:
    """Start everybody, watch, and wait for the end."""
    with ExitStack() as stack:
        log = stack.enter_context((jobs.coordinator / "log").open("w+b"))
        module = "coordinator_image" if work.tls else "benchmarks.plain_coordinator"
        server = stack.enter_context(running([sys.executable, "-m", module, str(jobs.coordinator)], log))
        wait_listening(server, jobs.port, log)
        clients = [stack.enter_context(running(command, log)) for command in _commands(work, jobs)]
        pids = [client.pid for client in clients]
        watch = Watch(jobs.coordinator / "events.jsonl", work.rounds, lambda: [server.pid], lambda: pids)
        until = time.monotonic() + _LONGEST
        while server.poll() is None:
            watch.look()
            failed = [client for client in clients if client.poll() not in {None, 0}]
            if failed or time.monotonic() > until:
                raise BenchmarkFailed(last_words(log))
            time.sleep(POLL)
        if any(process.wait(60) for process in (server, *clients)):
            raise BenchmarkFailed(last_words(log))
        return watch.result(work.theoretical_bytes())


def _commands(work: Work, jobs: Jobs) -> list[list[str]]:
    """Participants dealt out to processes."""
    folders = [str(folder) for folder in jobs.participants]
    count = min(work.processes, len(folders))
    start = [sys.executable, "-m", "benchmarks.participants"]
    return [[*start, *folders[place::count]] for place in range(count)]


@contextmanager
def running(command: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_listening(server: subprocess.Popen[bytes], port: int, log: Any, host: str = "127.0.0.1") -> None:
    """Until the port can be reached."""
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.05)
    raise BenchmarkFailed(last_words(log))


def last_words(log: Any) -> str:
    """What the processes printed at last."""
    log.seek(0)
    return log.read()[-3000:].decode(errors="replace") or "no process said anything"


def _check_room(work: Work, scratch: Path | None) -> None:
    """Refuse to begin what cannot end well."""
    where = scratch or Path(tempfile.gettempdir())
    free, need = shutil.disk_usage(where).free / 1e6, 1.2 * work.disk_bytes() / 1e6
    if free < need:
        raise BenchmarkFailed(f"{need:.0f} MB of disk are needed in {where}, {free:.0f} MB are free")
    memory = 3 * work.params * 4 / 1e6 + 100 * min(work.processes, work.clients)
    if measure.available_mb() < memory:
        raise BenchmarkFailed(f"{memory:.0f} MB of memory are needed, {measure.available_mb():.0f} MB are available")
