"""Processes by fork, so that a session of five processes costs no imports; and many of them two at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, suppress

SLOTS = 2


class Forked:
    """A child that runs ``work`` and ends with what it returns; what it prints goes to ``log``."""

    def __init__(self, work, log):
        sys.stdout.flush()
        sys.stderr.flush()
        self.code = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(work, log)
        self.handle = os.pidfd_open(self.pid)

    def wait(self, seconds):
        """The exit code, negative for a signal; None when it still runs after so many seconds."""
        if self.code is None and select.select([self.handle], [], [], max(0.0, seconds))[0]:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)
            os.close(self.handle)
        return self.code

    def signal(self, number):
        """Send it a signal, unless it is over."""
        if self.code is None:
            signal.pidfd_send_signal(self.handle, number)

    def end(self):
        """Kill it, if it is not over."""
        if self.wait(0) is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.wait(10)


def wait_any(processes, seconds):
    """Wait until one of those that run ends."""
    handles = [process.handle for process in processes if process.code is None]
    select.select(handles, [], [], max(0.0, seconds))


def _become(work, log):
    """The child's whole life; it never returns to what the parent was doing."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.stderr = os.fdopen(os.dup(handle), "w", buffering=1)
        logging.getLogger().handlers.clear()  # the test runner's
        warnings.resetwarnings()
        code = work() or 0
    except BaseException:  # noqa: BLE001  whatever it was, the parent reads it in the log
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


@contextmanager
def all_ended(processes):
    """End whatever still runs of a growing list of children."""
    try:
        yield processes
    finally:
        for process in processes:
            process.end()


def in_slots(jobs, folder, seconds, slots=SLOTS):
    """Run ``jobs`` (callables that return something that JSON knows), a few at a time; their results in order.

    A job gets a slot's number. One that raises has the traceback's last line under ``failed``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "next").write_text("0")
    with all_ended([]) as workers:
        for slot in range(slots):
            workers.append(Forked(lambda slot=slot: _work(jobs, slot, folder), folder / f"slot-{slot}.log"))
        until = time.monotonic() + seconds
        for slot, worker in enumerate(workers):
            code = worker.wait(until - time.monotonic())
            assert code == 0, f"slot {slot} ended with {code}: {(folder / f'slot-{slot}.log').read_text()[-3000:]}"
    results = {}
    for slot in range(slots):
        for line in (folder / f"slot-{slot}.jsonl").read_text().splitlines():
            number, result = json.loads(line)
            results[number] = result
    return [results[number] for number in range(len(jobs))]


def _work(jobs, slot, folder):
    with (folder / f"slot-{slot}.jsonl").open("w", buffering=1) as file:
        while (number := _next(folder / "next")) < len(jobs):
            try:
                result = jobs[number](slot)
            except Exception as error:  # noqa: BLE001  the other jobs go on; the parent judges
                traceback.print_exc()
                result = {"failed": f"{type(error).__name__}: {error}"[:2000]}
            file.write(json.dumps([number, result]) + "\n")


def _next(path):
    """The number of the next job; each is handed out once."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        number = int(file.read())
        file.seek(0)
        file.write(str(number + 1))
        file.flush()
    return number


def free_ports(slot, count):
    """A run of ports below those that the system hands out to others, so that they stay free while their owner is dead."""
    for attempt in range(2000):
        first = 24000 + (os.getpid() * 7 + slot * 1009 + attempt) % 8000
        if all(_is_free(port) for port in range(first, first + count)):
            return range(first, first + count)
    raise AssertionError(f"no {count} ports in a row are free")


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
