"""How does a server of the network start, and how is it sure to end?

Rule 1: a child leads its own session and process group. Rule 2: it dies with the supervisor, however that ends. Rule 3:
Python servers are forked from a supervisor that has imported what they need (web3 alone costs 3.7 s of CPU time each);
nothing else may be forked off a supervisor with threads, so it has none.
"""

from __future__ import annotations

import ctypes
import logging
import os
import runpy
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from nevermined_fl import recursion

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Child", "become_subreaper", "die_with_parent", "spawn"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Child:
    """A process to run: ``argv``, and the ``url`` that answers once it is ready ("" when it only has to end well).

    ``restart`` says whether it is started again when it dies; what keeps its state in memory cannot be.
    """

    name: str
    argv: tuple[str, ...]
    url: str = ""
    restart: bool = True


def spawn(child: Child, *, log: Path, folder: Path) -> int:
    """Start it; its output is appended to ``log``. Returns its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live_and_exit(child, log, folder, parent)
    return pid


def die_with_parent(parent: int, sign: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send ``sign`` to this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, sign)
    if os.getppid() != parent:
        # The parent ended before the kernel knew of our wish.
        os._exit(1)


def become_subreaper() -> None:
    """Make orphans below this process its children, so that none escapes when the network goes down."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _live_and_exit(child: Child, log: Path, folder: Path, parent: int) -> NoReturn:
    code = 1
    try:
        _settle(log, folder, parent)
        code = _run(child.argv)
    except BaseException:  # noqa: BLE001  a forked child must never return into the supervisor's own loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle(log: Path, folder: Path, parent: int) -> None:
    os.setsid()
    die_with_parent(parent)
    recursion.bound()  # the supervisor has imported py-evm for the chain's sake
    for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(sign, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    logging.getLogger().handlers.clear()
    os.chdir(folder)
    quiet = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(quiet, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 1024)


def _run(argv: tuple[str, ...]) -> int:
    if argv[:2] != (sys.executable, "-m"):
        os.execvp(argv[0], argv)  # noqa: S606  anvil, from PATH or node_modules
    sys.argv = list(argv[2:])
    # Run as __main__ what the supervisor may have imported as a module.
    sys.modules.pop(argv[2], None)
    try:
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return 130
    return 0


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
