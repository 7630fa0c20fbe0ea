"""How is an embedded network started, found and stopped, by whoever wants one?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nevermined_fl.devnet.home import Home, State
from nevermined_fl.errors import BackendError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

__all__ = ["Devnet", "down", "start"]

_STOP_SECONDS = 20.0
_START_SECONDS = 180.0


@dataclass(slots=True)
class Devnet:
    """A network that is starting or runs, held by a tether: when this process ends, so does the network.

    Use it as a context manager; :meth:`release` lets it outlive this process.
    """

    home: Home
    process: subprocess.Popen[bytes]
    tether: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.tether >= 0:
            self.stop()

    def wait_ready(self, progress: Callable[[str], None] = lambda _: None) -> State:
        """Wait until all of it answers.

        Raises:
            BackendError: with the end of the log of the process that did not come up.
        """
        deadline = time.monotonic() + _START_SECONDS
        seen = 0
        while time.monotonic() < deadline:
            state = self.home.load()
            for entry in state.processes[seen:]:
                progress(f"{entry.name} starts at {entry.url}")
            seen = max(seen, len(state.processes))
            if state.phase == "ready":
                return state
            if self.process.poll() is not None:
                raise BackendError(
                    f"the network did not start: {self.home.load().message or self.home.log_tail('supervisor')}",
                    hint=f"the logs are in {self.home.root / 'logs'}",
                )
            time.sleep(0.1)
        raise BackendError(f"the network did not start within {_START_SECONDS:.0f} s")

    def release(self) -> None:
        """Let the network run on after this process."""
        os.write(self.tether, b"k")
        os.close(self.tether)
        self.tether = -1

    def stop(self) -> None:
        """Take it down and wait until nothing of it is left."""
        os.close(self.tether)
        self.tether = -1
        _wait_for_end(self.home, self.process.pid, self.process)


def start(root: Path | str, *, providers: int = 3, rpc_url: str = "") -> Devnet:
    """Start a network in an empty or no longer used folder; what an earlier one left there is removed.

    Raises:
        SettingsError: one runs there already, or the folder holds something else.
    """
    if providers < 1:
        raise SettingsError(f"a network has at least one data provider, not {providers}")
    home = Home.at(root)
    _clear(home)
    log = home.log("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    theirs, ours = os.pipe()
    command = [sys.executable, "-m", "nevermined_fl.devnet.supervisor", "--home", str(home.root)]
    command += ["--providers", str(providers), "--tether", str(theirs), *(["--rpc-url", rpc_url] if rpc_url else [])]
    # One BLAS thread: a supervisor with threads could not fork.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[theirs],
            start_new_session=True,
            env=environment,
        )
    os.close(theirs)
    return Devnet(home, process, ours)


def down(root: Path | str) -> bool:
    """Stop the network of a folder; False when none ran."""
    home = Home.at(root)
    state = home.load()
    if not state.is_running():
        return False
    os.kill(state.pid, signal.SIGTERM)
    _wait_for_end(home, state.pid)
    return True


def _clear(home: Home) -> None:
    if home.load().is_running():
        raise SettingsError(f"a network runs in {home.root}", hint=f"nevermined-fl devnet down --home {home.root}")
    if home.root.exists() and any(home.root.iterdir()):
        if not home.state_file.exists():
            raise SettingsError(f"{home.root} is not empty and holds no network", hint="choose another --home")
        shutil.rmtree(home.root)
    home.root.mkdir(parents=True, exist_ok=True)
    home.save(State("starting"))


def _wait_for_end(home: Home, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while (process.poll() is None) if process else home.load().is_running():
        if time.monotonic() > deadline:
            # Its children die with it: the kernel sees to that.
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
