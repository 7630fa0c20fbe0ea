"""What keeps an embedded network alive, and takes it down whole?

One process without threads: it forks the servers, waits for signals, starts again what died, and on its way out leaves
neither a process nor a listening port. ``--tether FD`` is a pipe from whoever started it: when that process is gone
without having written a byte, so is the network.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import select
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl import logs
from nevermined_fl.devnet.child import Child, become_subreaper, spawn
from nevermined_fl.devnet.home import Home, ProcessEntry
from nevermined_fl.devnet.plan import plan_network, plan_servers, python_module
from nevermined_fl.devnet.processes import descendants, kill_all, start_ticks
from nevermined_fl.devnet.ready import answers
from nevermined_fl.errors import BackendError, NeverminedFLError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Supervisor", "main"]

logger = logging.getLogger(__name__)

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_STARTUP_SECONDS = 90.0
_GRACE_SECONDS = 5.0
_RESTARTS = 5
# What the chain needs is imported before it is forked, the rest while it starts.
_CHAIN_NEEDS = ("nevermined_fl.devnet.evm", "aiohttp.web")
_SERVERS_NEED = ("flask", "waitress", "httpx", "joserfc.jws", "nevermined_contracts", "nevermined_fl.chain.nevermined")


class Stop(BaseException):
    """A signal or a cut tether: go down now. Not an error, so that nothing catches it by mistake."""


class Supervisor:
    """Runs the processes of one home folder."""

    def __init__(self, home: Home, *, providers: int, rpc_url: str = "", tether: int = -1) -> None:
        self.home = home
        self._tether = tether
        self._running: dict[int, Child] = {}
        self._restarts: dict[str, int] = {}
        self._stop = False
        self.state = plan_network(home, providers=providers, rpc_url=rpc_url)
        self._servers = plan_servers(home, self.state, embedded_chain=not rpc_url)

    def run(self) -> int:
        """Start everything, keep it running until told to stop, take it down; 0 when it was told to."""
        become_subreaper()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._start()
            while True:
                self._wait(1.0)
        except Stop:
            self.state = replace(self.state, phase="stopped", message="", processes=())
            return 0
        except NeverminedFLError as error:
            self.state = replace(self.state, phase="failed", message=error.message, processes=())
            return 1
        finally:
            self._take_down()
            self.home.save(self.state)

    def _start(self) -> None:
        self._note("starting")
        _preload(_CHAIN_NEEDS)
        self._spawn(*self._servers.shared)
        _preload(_SERVERS_NEED)
        self._until_ready(*self._servers.shared)
        self._genesis()
        self._spawn(*self._servers.providers)
        self._until_ready(*self._servers.providers)
        self._note("ready")

    def _spawn(self, *children: Child) -> None:
        for child in children:
            pid = spawn(child, log=self.home.log(child.name), folder=self.home.root)
            self._running[pid] = child
            entry = ProcessEntry(child.name, pid, start_ticks(pid), child.url, str(self.home.log(child.name)))
            others = tuple(p for p in self.state.processes if p.name != child.name)
            self.state = replace(self.state, processes=(*others, entry))
            logger.info("%s started as process %d", child.name, pid)
        self.home.save(self.state)

    def _genesis(self) -> None:
        child = Child("genesis", python_module("nevermined_fl.devnet.genesis", self.home.root), restart=False)
        pid = spawn(child, log=self.home.log(child.name), folder=self.home.root)
        self._running[pid] = child
        deadline = time.monotonic() + _STARTUP_SECONDS
        while pid in self._running:
            if time.monotonic() > deadline:
                raise self._failure("genesis", f"is not done after {_STARTUP_SECONDS:.0f} s")
            self._wait(0.1)

    def _until_ready(self, *children: Child) -> None:
        deadline = time.monotonic() + _STARTUP_SECONDS
        for child in children:
            while not answers(child.url):
                if time.monotonic() > deadline:
                    raise self._failure(child.name, f"did not answer at {child.url} within {_STARTUP_SECONDS:.0f} s")
                self._wait(0.05)

    def _wait(self, seconds: float) -> None:
        """Handle what happens within ``seconds``: signals, ended children, the tether."""
        got = signal.sigtimedwait(_SIGNALS, seconds)
        if got is not None and got.si_signo != signal.SIGCHLD:
            raise Stop
        if self._tether >= 0 and select.select([self._tether], [], [], 0)[0]:
            if not os.read(self._tether, 1):
                raise Stop
            os.close(self._tether)
            self._tether = -1
        while ended := _reap():
            self._on_end(*ended)

    def _on_end(self, pid: int, code: int) -> None:
        child = self._running.pop(pid, None)
        if child is None or (child.name == "genesis" and code == 0):
            return
        logger.error("%s (process %d) ended with %d", child.name, pid, code)
        count = self._restarts[child.name] = self._restarts.get(child.name, 0) + 1
        if self.state.phase != "ready" or not child.restart or count > _RESTARTS:
            raise self._failure(child.name, f"ended with code {code}")
        self._spawn(child)

    def _failure(self, name: str, what: str) -> BackendError:
        tail = self.home.log_tail(name)
        return BackendError(f"{name} {what}; the end of {self.home.log(name)}:\n{tail}")

    def _note(self, phase: str) -> None:
        self.state = replace(self.state, phase=phase)
        self.home.save(self.state)
        logger.info("network %s in %s", phase, self.home.root)

    def _take_down(self) -> None:
        for pid, child in self._running.items():
            # A server that keeps jobs ends them itself when asked; whatever is left after the grace is killed.
            logger.info("stopping %s", child.name)
            _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while descendants(os.getpid()):
            if time.monotonic() > deadline:
                kill_all(descendants(os.getpid()))
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
            while _reap():
                pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nevermined_fl.devnet.supervisor``."""
    parser = argparse.ArgumentParser(prog="nevermined_fl.devnet.supervisor", description=__doc__)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--providers", type=int, default=3)
    parser.add_argument("--rpc-url", default="")
    parser.add_argument("--tether", type=int, default=-1)
    chosen = parser.parse_args(arguments)
    logs.configure()
    supervisor = Supervisor(
        Home.at(chosen.home), providers=chosen.providers, rpc_url=chosen.rpc_url, tether=chosen.tether
    )
    return supervisor.run()


def _preload(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _signal_group(pid: int, sign: signal.Signals) -> None:
    try:
        os.killpg(pid, sign)
    except (ProcessLookupError, PermissionError):
        # Between fork and setsid there is no such group yet.
        os.kill(pid, sign)


if __name__ == "__main__":
    sys.exit(main())
