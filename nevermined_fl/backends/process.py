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
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.backends import bubblewrap, runner
from nevermined_fl.backends.run import NOTE, Run, find, prepare
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
_OUTPUT = "raw.log"
_KILL_SECONDS = 10.0
_ORPHAN_SECONDS = 30.0
_ENTRYPOINT = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class ProcessBackend:
    """Runs jobs as processes; safe to call from several threads.

    Args:
        home: raw output goes to ``<home>/<job id>/raw.log``, at most 16 MiB of it.
        allow_no_isolation: whether jobs may run where bubblewrap does not work.
        bwrap: path of the program; "" is the plain mode.
        hide: folders that no job may see, such as the provider's own.
        orphan_seconds: how long jobs live on without a backend that holds them, for the next one to take over.

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
        orphan_seconds: float = _ORPHAN_SECONDS,
    ) -> None:
        self._home = Path(home)
        self._orphan_seconds = orphan_seconds
        self._hide = tuple(Path(path).resolve() for path in hide)
        self._bwrap, reason = _usable(shutil.which("bwrap") or "" if bwrap is None else bwrap)
        self._runs: dict[str, Run] = {}
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
        """Start it; the handle is the job's id. A job that is over may be submitted again.

        One that an earlier backend of this home left running is taken over; one that ended since then is over.
        """
        self._check(spec)
        folder = self._home / spec.id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if spec.id not in self._runs and (found := find(folder)):
            logger.info("job %s is taken over", spec.id)
            self._runs[spec.id] = found
            return spec.id
        (spec.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        try:
            self._runs[spec.id] = self._start(spec, folder)
        except OSError as error:
            raise BackendError(f"job {spec.id} could not be started: {error.strerror}") from error
        return spec.id

    def state(self, handle: str) -> JobState:
        """How it is doing."""
        run = self._run(handle)
        code = run.code()
        if code is None:
            return JobState("Running", started=run.started, isolation=self.isolation)
        # A negative code: somebody killed the runner itself.
        status = "Succeeded" if code == 0 else "Error" if code == runner.OWN_FAILURE or code < 0 else "Failed"
        exit_code = code if code >= 0 else 128 - code
        return JobState(status, exit_code, run.started, run.finished, self.isolation)

    def logs(self, handle: str) -> bytes:
        """Raw output, for the provider's eyes only; the last MiB."""
        output = self._run(handle).folder / _OUTPUT
        parts = [path.read_bytes() for path in (Path(f"{output}.1"), output) if path.exists()]
        return b"".join(parts)[-_LOG_BYTES:]

    def stop(self, handle: str, *, grace: float = 0.0) -> None:
        """End it with everything it started: asked to, and killed after ``grace`` seconds. Over is no error."""
        run = self._run(handle)
        run.end(grace=grace)
        if not run.wait(grace + _KILL_SECONDS):
            run.kill()
            raise BackendError(f"job {handle} did not end within {_KILL_SECONDS:.0f} s; its runner was killed")

    def close(self) -> None:
        """Stop every job."""
        for run in self._runs.values():
            run.end(grace=0.0)
        for handle in tuple(self._runs):
            with suppress(BackendError):
                self.stop(handle)

    def _run(self, handle: str) -> Run:
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

    def _start(self, spec: JobSpec, folder: Path) -> Run:
        reader, writer = prepare(folder)
        try:
            popen = _start(self._order(spec, folder, reader), folder / _OUTPUT, reader)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        return Run(folder, writer, time.time(), popen)

    def _order(self, spec: JobSpec, home: Path, lifeline: int) -> dict[str, Any]:
        folder = bubblewrap.FOLDER if self._bwrap else spec.folder
        wrap = bubblewrap.command(self._bwrap, spec, hide=self._hide) if self._bwrap else []
        return {
            "argv": [*wrap, sys.executable, "-m", spec.entrypoint, str(folder)],
            "env": self._environment(spec, folder),
            "cwd": str(spec.folder),
            "wrapped": bool(self._bwrap),
            "lifeline": lifeline,
            "note": str(home / NOTE),
            "orphan_seconds": self._orphan_seconds,
            "output": str(home / _OUTPUT),
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


def _start(order: dict[str, Any], output: Path, lifeline: int) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-I", "-S", runner.__file__]
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        popen = subprocess.Popen(  # noqa: S603  our own runner
            line,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(lifeline,),
        )
    assert popen.stdin is not None
    with popen.stdin:
        popen.stdin.write(json.dumps(order).encode() + b"\n")
    return popen


def _own_tasks() -> int:
    """Threads that this user runs already: RLIMIT_NPROC counts them all, whatever they belong to."""
    tasks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if process.stat().st_uid == os.getuid():
                tasks += int((process / "stat").read_text().rpartition(")")[2].split()[17])
    return tasks
