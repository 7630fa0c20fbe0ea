"""Process backend: each job a process tree of its own on this machine, shut in by bubblewrap where that works.

Without bubblewrap a job is an ordinary process of the provider's user: limits and clean-up hold, isolation does not,
and the backend says so and refuses unless it is told to go on.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.backends import bubblewrap, runner
from nevermined_fl.errors import BackendError
from nevermined_fl.ports import JobSpec, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.settings import ProviderSettings

__all__ = ["ProcessBackend", "from_settings"]

logger = logging.getLogger(__name__)
_OUTPUT_BYTES = 16 * 1024**2
_LOG_BYTES = 1024**2
_FILE_BYTES = 16 * 1024**3
_OPEN_FILES = 4096
_KILL_SECONDS = 10.0
_ENTRYPOINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


@dataclass(slots=True)
class _Run:
    """A job that was started; ``popen`` is its runner."""

    popen: subprocess.Popen[bytes]
    output: Path
    started: float
    finished: float | None = None

    def close(self) -> None:
        """Close its pipe, which tells a runner that still runs to end everything."""
        assert self.popen.stdin is not None
        with suppress(OSError):
            self.popen.stdin.close()


class ProcessBackend:
    """Runs jobs as processes; safe to call from several threads.

    Args:
        home: raw output goes to ``<home>/<job id>/raw.log``, at most 16 MiB of it.
        allow_no_isolation: whether jobs may run where bubblewrap does not work.
        bwrap: path of the program; "" is the plain mode.
        hide: folders that no job may see, such as the provider's own.

    Raises:
        BackendError: bubblewrap does not work here and ``allow_no_isolation`` is False.
    """

    def __init__(
        self,
        home: Path,
        *,
        allow_no_isolation: bool = False,
        bwrap: str | None = None,
        hide: Sequence[Path] = (),
    ) -> None:
        self._home = Path(home)
        self._hide = tuple(Path(path).resolve() for path in hide)
        self._bwrap, reason = _usable(shutil.which("bwrap") or "" if bwrap is None else bwrap)
        self._runs: dict[str, _Run] = {}
        if not self._bwrap:
            if not allow_no_isolation:
                hint = "install bubblewrap, or set policy.allow_no_isolation in provider.toml"
                raise BackendError(f"no isolation is to be had for jobs: {reason}", hint=hint)
            logger.warning("jobs run without isolation: %s", reason)

    @property
    def isolation(self) -> str:
        """``bubblewrap`` or ``none``."""
        return "bubblewrap" if self._bwrap else "none"

    def submit(self, spec: JobSpec) -> str:
        """Start it; the handle is the job's id. A job that is over may be submitted again."""
        self._check(spec)
        output = self._home / spec.id / "raw.log"
        output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (spec.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        try:
            popen = _start(self._order(spec, output), output)
        except OSError as error:
            raise BackendError(f"job {spec.id} could not be started: {error.strerror}") from error
        self._runs[spec.id] = _Run(popen, output, time.time())
        return spec.id

    def state(self, handle: str) -> JobState:
        """How it is doing."""
        run = self._run(handle)
        code = run.popen.poll()
        if code is None:
            return JobState("Running", started=run.started, isolation=self.isolation)
        run.close()
        run.finished = run.finished or time.time()
        # A negative code: somebody killed the runner itself.
        status = "Succeeded" if code == 0 else "Error" if code == runner.OWN_FAILURE or code < 0 else "Failed"
        exit_code = code if code >= 0 else 128 - code
        return JobState(status, exit_code, run.started, run.finished, self.isolation)

    def logs(self, handle: str) -> bytes:
        """Raw output, for the provider's eyes only; the last MiB."""
        output = self._run(handle).output
        parts = [path.read_bytes() for path in (Path(f"{output}.1"), output) if path.exists()]
        return b"".join(parts)[-_LOG_BYTES:]

    def stop(self, handle: str) -> None:
        """Kill it with everything it started. Stopping what is over is no error."""
        run = self._run(handle)
        run.close()
        try:
            run.popen.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired as error:
            os.killpg(run.popen.pid, signal.SIGKILL)
            raise BackendError(
                f"job {handle} did not end within {_KILL_SECONDS:.0f} s; its runner was killed"
            ) from error

    def close(self) -> None:
        """Stop every job."""
        for handle in tuple(self._runs):
            with suppress(BackendError):
                self.stop(handle)

    def _run(self, handle: str) -> _Run:
        if handle not in self._runs:
            raise BackendError(f"this backend started no job {handle}")
        return self._runs[handle]

    def _check(self, spec: JobSpec) -> None:
        if not _ENTRYPOINT.fullmatch(spec.entrypoint):
            raise BackendError(f"entrypoint {spec.entrypoint!r} is not a module's name")
        if "/" in spec.id or spec.id.startswith("."):
            raise BackendError(f"job id {spec.id!r} is not a file's name")
        if spec.id in self._runs and not self.state(spec.id).is_over():
            raise BackendError(f"job {spec.id} is running")
        for path in (spec.folder, *spec.read_only.values()):
            if not path.exists():
                raise BackendError(f"job {spec.id}: there is no {path}")

    def _order(self, spec: JobSpec, output: Path) -> dict[str, Any]:
        folder = bubblewrap.FOLDER if self._bwrap else spec.folder
        wrap = bubblewrap.command(self._bwrap, spec, hide=self._hide) if self._bwrap else []
        return {
            "argv": [*wrap, sys.executable, "-m", spec.entrypoint, str(folder)],
            "env": self._environment(spec, folder),
            "cwd": str(spec.folder),
            "output": str(output),
            "output_bytes": _OUTPUT_BYTES,
            "memory": spec.memory,
            "processes": spec.processes,
            "cpu_seconds": spec.cpu_seconds,
            "rlimits": {
                "RLIMIT_CPU": spec.cpu_seconds,
                "RLIMIT_NPROC": _own_tasks() + spec.processes,
                "RLIMIT_FSIZE": _FILE_BYTES,
                "RLIMIT_NOFILE": _OPEN_FILES,
                "RLIMIT_CORE": 0,
            },
        }

    def _environment(self, spec: JobSpec, folder: Path) -> dict[str, str]:
        packages = bubblewrap.package_folders()
        temporary = "/tmp" if self._bwrap else str(folder / "tmp")  # noqa: S108  the job's own, see bubblewrap.py
        seen = {
            name: str(bubblewrap.inside(path, name, spec) if self._bwrap else path)
            for name, path in spec.read_only.items()
        }
        # Without PYTHONSAFEPATH `-m` would import from the working folder, where the job itself writes.
        own = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        if packages:
            own["PYTHONPATH"] = str(packages[0].parent)
        base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "TMPDIR": temporary, "LANG": "C.UTF-8"}
        # A value that is a path of the job's folder is told as the job sees it.
        given = {
            name: re.sub(f"^{re.escape(str(spec.folder))}(?=/|$)", str(folder), value)
            for name, value in spec.environment.items()
        }
        return base | own | seen | given


def from_settings(settings: ProviderSettings) -> ProcessBackend:
    """The backend as the provider's settings ask for it."""
    allowed = settings.policy.allow_no_isolation
    return ProcessBackend(settings.path("jobs"), allow_no_isolation=allowed, hide=(settings.home,))


def _usable(bwrap: str) -> tuple[str, str]:
    """The program when it works here, else "" and why not."""
    if not bwrap:
        return "", "bubblewrap is not installed"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tmp").mkdir()
        reason = bubblewrap.probe(bwrap, JobSpec("probe", "probe", Path(folder)))
    return ("", f"bubblewrap does not work here: {reason}") if reason else (bwrap, "")


def _start(order: dict[str, Any], output: Path) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-I", "-S", runner.__file__]
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        popen = subprocess.Popen(  # noqa: S603  our own runner
            line, stdin=subprocess.PIPE, stdout=log, stderr=log, env={}, cwd="/", start_new_session=True
        )
    assert popen.stdin is not None
    popen.stdin.write(json.dumps(order).encode() + b"\n")
    popen.stdin.flush()
    return popen


def _own_tasks() -> int:
    """Threads that this user runs already: RLIMIT_NPROC counts them all, whatever they belong to."""
    tasks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if process.stat().st_uid == os.getuid():
                tasks += int((process / "stat").read_text().rpartition(")")[2].split()[17])
    return tasks
