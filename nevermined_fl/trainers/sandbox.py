"""The sandbox around the buyer's code: which command starts a child that sees data, algorithm and scratch alone.

The participant may itself be inside the launcher's bubblewrap. There a new /proc cannot be mounted; the outer one is
shown read-only instead, and the kernel keeps the child from looking into processes outside its user namespace.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["clean_environment", "isolation", "wrap"]

_PACKAGE = Path(__file__).resolve().parents[1]
_MEMORY_BYTES = str(64 * 1024**2)
_PROCS = (("--proc", "/proc"), ("--ro-bind", "/proc", "/proc"))


def isolation() -> str:
    """``bubblewrap`` or ``none``: what a child of this process can be given."""
    return "bubblewrap" if _prefix() else "none"


def wrap(command: Sequence[str], *, read_only: Sequence[Path], scratch: Path) -> list[str]:
    """The command that runs ``command`` with ``scratch`` as the only place to write, where isolation is to be had."""
    prefix = _prefix()
    if not prefix:
        return list(command)
    binds = [part for path in read_only for part in ("--ro-bind", str(path), str(path))]
    own = ["--bind", str(scratch), str(scratch), "--remount-ro", "/", "--chdir", str(scratch)]
    return [*prefix, *binds, *own, *command]


def clean_environment(scratch: Path) -> dict[str, str]:
    """The variables of a child: nothing of ours, one thread per library, so that a replay is bit-identical."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    if not _PACKAGE.is_relative_to(sys.prefix):
        environment["PYTHONPATH"] = str(_PACKAGE.parent)
    return environment


@functools.cache
def _prefix() -> tuple[str, ...]:
    """Bubblewrap with the arguments that work here, or nothing."""
    program = shutil.which("bwrap")
    if program is None:
        return ()
    for proc in _PROCS:
        prefix = (program, *_base(), *proc)
        if _works(prefix):
            return prefix
    return ()


def _base() -> list[str]:
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # Memory file systems count for nobody: whatever can be written there is small, and the rest is read-only.
    arguments += ["--dev", "/dev", "--size", _MEMORY_BYTES, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108  mounted, not written to
    arguments += ["--size", _MEMORY_BYTES, "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr"]  # noqa: S108  the child's own
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.exists():
            arguments += ["--ro-bind", name, name]
    for path in _python_folders():
        arguments += ["--ro-bind", str(path), str(path)]
    return arguments


def _python_folders() -> list[Path]:
    """Prefixes of the interpreter, and our package where it is installed editable; parents before their children."""
    named = {Path(sys.prefix), Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parent.parent}
    folders = named | {path.resolve() for path in named}
    folders = {path for path in folders if not path.is_relative_to("/usr")}
    if not any(_PACKAGE.is_relative_to(path) for path in folders | {Path("/usr")}):
        folders.add(_PACKAGE)
    return sorted(folders)


def _works(prefix: Sequence[str]) -> bool:
    try:
        done = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True, timeout=30, check=False)  # noqa: S603  our own command
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
