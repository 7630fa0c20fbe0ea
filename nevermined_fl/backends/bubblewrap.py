"""Bubblewrap: which command line shuts a job in with its own folder, its data and a Python?

Source: bwrap(1) 0.8. What is not named here does not exist inside: no home, no key, no other job, and for a job
that does not listen no network but loopback. A job may nest another bwrap if it binds /proc read-only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nevermined_fl.ports import JobSpec

__all__ = ["FOLDER", "command", "inside", "package_folders", "probe"]

FOLDER = Path("/job")
"""Where a job finds its own folder: short, because a unix socket's path is at most 107 bytes."""
_DATA = Path("/data")
_PACKAGES = ("nevermined_fl", "participant_image", "coordinator_image", "workflows")
_SHM_BYTES = str(64 * 1024**2)


def command(bwrap: str, spec: JobSpec, *, hide: Sequence[Path] = ()) -> list[str]:
    """The command line in front of the job's own.

    Args:
        bwrap: path of the program.
        spec: the job; ``listen`` keeps the machine's network, without it there is none.
        hide: folders that must stay empty even where they lie below something that is bound (a Python prefix).
    """
    return [
        *(bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *(("--share-net",) if spec.listen else ()),
        *("--uid", "1000", "--gid", "1000", "--hostname", "job"),
        *_system(network=spec.listen is not None),
        # Before Python, which may itself live below /tmp.
        *("--bind", str(spec.folder / "tmp"), "/tmp"),  # noqa: S108  the job's own
        *_python(hide),
        *_own(spec),
        *("--remount-ro", "/", "--chdir", str(FOLDER), "--"),
    ]


def inside(path: Path, name: str, spec: JobSpec) -> Path:
    """Where the job sees a host path: below its own folder, else in ``/data/<name>``."""
    if path.is_relative_to(spec.folder):
        return FOLDER / path.relative_to(spec.folder)
    return _DATA / name


def package_folders() -> list[Path]:
    """Our own packages' folders, when Python finds them outside of its prefixes (an editable install).

    The packages alone, not the folder around them: a repository may hold an embedded network with everybody's keys.
    """
    root = Path(__file__).resolve().parents[2]
    if any(root.is_relative_to(prefix) for prefix in _prefixes()):
        return []
    return [root / name for name in _PACKAGES if (root / name).is_dir()]


def probe(bwrap: str, spec: JobSpec) -> str:
    """Try it with this very Python; the reason why it does not work, or an empty string."""
    line = [*command(bwrap, spec), sys.executable, "-I", "-S", "-c", "pass"]
    try:
        done = subprocess.run(line, capture_output=True, timeout=20, check=False, env={})  # noqa: S603  our own command
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"


def _system(*, network: bool) -> Iterable[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    files = ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime", "/etc/alternatives"]
    for name in files + (["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"] if network else []):
        yield from ("--ro-bind-try", name, name)
    # Memory file systems count for nobody, so they are small or read-only; /tmp is a folder of the job's own.
    yield from ("--proc", "/proc", "--dev", "/dev", "--size", _SHM_BYTES)
    yield from ("--tmpfs", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108  mounted, not written to


def _prefixes() -> list[Path]:
    roots = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    # Both spellings: a virtual environment's link to its Python may pass through another link.
    return sorted({p for root in roots for p in (root, root.resolve())})


def _python(hide: Sequence[Path]) -> Iterable[str]:
    bound = [path for path in [*_prefixes(), *package_folders()] if not path.is_relative_to("/usr")]
    for path in bound:
        yield from ("--ro-bind", str(path), str(path))
    for path in hide:
        if any(path.is_relative_to(root) for root in [*bound, Path("/usr")]):
            yield from ("--tmpfs", str(path))


def _own(spec: JobSpec) -> Iterable[str]:
    yield from ("--bind", str(spec.folder), str(FOLDER))
    for name, path in spec.read_only.items():
        yield from ("--ro-bind", str(path), str(inside(path, name, spec)))
    for path in spec.sockets:
        if not path.is_relative_to(spec.folder):
            yield from ("--ro-bind", str(path), str(path))
