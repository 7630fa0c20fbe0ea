"""One session with real processes, watched from outside: how long is a round, and what does it cost?

The coordinator is ``python -m coordinator_image`` itself (or the same without TLS). Round 1 warms up; the processes'
clocks and the loopback's counter are read when it is committed and again when the last measured round is.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import measure, network, raw_socket
from benchmarks.market import AdmissionServer, Market
from benchmarks.work import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.work import Jobs, Work

_POLL = 0.01
_LONGEST = 1800.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What had been used when a round was committed."""

    server_cpu: float
    client_cpu: float
    bytes: int


class BenchmarkFailed(Exception):
    """A process ended badly or in no time; its last words are the message."""


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
        socket_seconds = raw_socket.transfer(work.params * 4, work.clients) if raw else None
        with AdmissionServer(market, jobs.coordinator / "admission.sock"):
            found = _Session(work, jobs).run()
    line = {"params": work.params, "clients": work.clients, "tls": work.tls, **found, "load": before}
    if socket_seconds is not None:
        line |= {"raw_socket_s": round(socket_seconds, 4), "ratio_to_raw": round(found["round_s"] / socket_seconds, 2)}
    return line


class _Session:
    """The processes of one session, from their start to their end."""

    def __init__(self, work: Work, jobs: Jobs) -> None:
        self._work, self._jobs = work, jobs
        self._events = jobs.coordinator / "events.jsonl"
        self._read = 0
        self._peak = 0.0
        self._samples: dict[int, Sample] = {}
        self._committed: list[float] = []

    def run(self) -> dict[str, Any]:
        """Start everybody, watch, and wait for the end."""
        with ExitStack() as stack:
            log = stack.enter_context((self._jobs.coordinator / "log").open("w+b"))
            module = "coordinator_image" if self._work.tls else "benchmarks.plain_coordinator"
            server = stack.enter_context(_process([module, str(self._jobs.coordinator)], log))
            _wait_listening(server, self._jobs.port, log)
            clients = [stack.enter_context(_process(command, log)) for command in self._commands()]
            until = time.monotonic() + _LONGEST
            while server.poll() is None:
                self._look(server, clients)
                failed = [client for client in clients if client.poll() not in {None, 0}]
                if failed or time.monotonic() > until:
                    raise BenchmarkFailed(_last_words(log))
                time.sleep(_POLL)
            self._look_at_events(server, clients)
            if any(process.wait(60) for process in (server, *clients)):
                raise BenchmarkFailed(_last_words(log))
        return self._result()

    def _commands(self) -> list[list[str]]:
        """Participants dealt out to processes."""
        folders = [str(folder) for folder in self._jobs.participants]
        count = min(self._work.processes, len(folders))
        return [["benchmarks.participants", *folders[place::count]] for place in range(count)]

    def _look(self, server: subprocess.Popen[bytes], clients: Sequence[subprocess.Popen[bytes]]) -> None:
        with suppress(OSError, ValueError):  # it may just have ended
            self._peak = max(self._peak, measure.peak_rss_mb(server.pid))
        self._look_at_events(server, clients)

    def _look_at_events(self, server: subprocess.Popen[bytes], clients: Sequence[subprocess.Popen[bytes]]) -> None:
        if not self._events.exists() or self._events.stat().st_size == self._read:
            return
        with self._events.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for event in map(json.loads, new.splitlines()):
            if event["event"] == "round_committed":
                self._committed.append(event["time"])
                if event["round"] in {1, 1 + self._work.rounds}:
                    self._samples[event["round"]] = _sample(server, clients)

    def _result(self) -> dict[str, Any]:
        rounds = self._work.rounds
        if len(self._committed) != rounds + 2 or len(self._samples) != 2:
            raise BenchmarkFailed(f"{len(self._committed)} rounds were committed, expected {rounds + 2}")
        first, last = self._samples[1], self._samples[1 + rounds]
        took = [after - before for before, after in zip(self._committed, self._committed[1:-1], strict=False)]
        sent = (last.bytes - first.bytes) / rounds
        return {
            "round_s": round(median(took), 4),
            "server_rss_mb": round(self._peak, 1),
            "server_cpu_s": round((last.server_cpu - first.server_cpu) / rounds, 4),
            "wire_ratio": round(sent / self._work.theoretical_bytes(), 4),
            "client_cpu_s": round((last.client_cpu - first.client_cpu) / rounds, 4),
            "rounds": rounds,
            "slowest_round_s": round(max(took), 4),
            "private_network": network.is_private(),
        }


def _sample(server: subprocess.Popen[bytes], clients: Sequence[subprocess.Popen[bytes]]) -> Sample:
    with suppress(OSError):
        used = sum(measure.cpu_seconds(client.pid) for client in clients)
        return Sample(measure.cpu_seconds(server.pid), used, measure.loopback_bytes())
    raise BenchmarkFailed("a process ended before its time")


@contextmanager
def _process(arguments: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process that does not outlive the block."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_listening(server: subprocess.Popen[bytes], port: int, log: Any) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchmarkFailed(_last_words(log))


def _last_words(log: Any) -> str:
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
