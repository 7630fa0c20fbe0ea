"""Jobs: every live job is one asyncio task; what it does next is in the store, so a restarted launcher goes on."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import Conflict, StorageFull
from nevermined_fl.files import storage
from nevermined_fl.launcher.coordinator_job import run_coordinator
from nevermined_fl.launcher.limits import Limits
from nevermined_fl.launcher.orders import accept
from nevermined_fl.launcher.participant_job import run_participant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.store import Job

__all__ = ["Jobs"]

logger = logging.getLogger(__name__)
_KEPT = frozenset({"events.jsonl", "status.json", "job.json"})
_JOURNAL = "journal."
_KINDS = {"participant": run_participant, "coordinator": run_coordinator}


class Jobs:
    """The live jobs of a launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._limits: dict[str, Limits] = {}
        self._closing = False

    async def start(self, body: Mapping[str, Any]) -> Job:
        """Accept an order and begin with it."""
        if self._closing:
            raise Conflict("the launcher is being stopped", check="launcher_up", hint="try again in a minute")
        job: Job = await self._launcher.call(accept, self._launcher, body)
        self._begin(job)
        return job

    def resume(self) -> None:
        """Go on with every job that was live when the launcher ended."""
        for job in self._launcher.store.live():
            logger.info("going on with job %s at %s", job.id, job.stage)
            self._begin(job)

    def stop(self, job_id: str) -> Job:
        """End a job as its buyer wishes. What was earned before is settled all the same.

        Raises:
            Conflict: the model is being published: too late.
        """
        job = self._launcher.store.get(job_id)
        if job.finished is not None:
            return job
        if job.stage == "publishing" or (job.order.kind == "coordinator" and job.stage == "settling"):
            raise Conflict(f"{job_id} is publishing its model", check="job_stoppable")
        job = self._launcher.store.change(job_id, stopping=True)
        self._limits[job_id].stop()
        return job

    async def wait(self, job_id: str) -> None:
        """Return when the job is over."""
        if job_id in self._tasks:
            await asyncio.wait({self._tasks[job_id]})

    async def close(self) -> None:
        """Kill the processes and leave the jobs where they are; ``resume`` takes them up."""
        self._closing = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, job: Job) -> None:
        limits = Limits(self._launcher, job)
        self._limits[job.id] = limits
        self._tasks[job.id] = asyncio.ensure_future(self._live(job, limits))

    async def _live(self, job: Job, limits: Limits) -> None:
        try:
            await self._advance(job, limits)
        except asyncio.CancelledError:
            raise
        except Exception:
            # Our own bug. The others' jobs go on, and this one is not tried again at every start.
            logger.exception("job %s", job.id)
            now = self._launcher.clock()
            self._launcher.store.change(
                job.id, stage="over", status="Error", reason="an error of the launcher's; see its log", finished=now
            )
        finally:
            try:
                if self._launcher.store.get(job.id).finished is not None:
                    # In a thread: an algorithm may leave millions of files.
                    await self._launcher.call(_tidy, self._launcher.work(job.id))
            finally:
                self._limits.pop(job.id, None)
                self._tasks.pop(job.id, None)

    async def _advance(self, job: Job, limits: Limits) -> None:
        """Take a job to its end. A full disk costs no job: its stage is entered again until there is room."""
        while True:
            try:
                with storage(f"job {job.id}"):
                    self._launcher.work(job.id).mkdir(mode=0o700, parents=True, exist_ok=True)
                    await _KINDS[job.order.kind](self._launcher, job, limits)
            except StorageFull as full:
                logger.error("job %s waits for room: %s", job.id, full.message)  # noqa: TRY400  it says all
                await asyncio.sleep(self._launcher.pace.longest)
                job = self._launcher.store.get(job.id)
            else:
                return


def _tidy(work: Path) -> None:
    """Leave no data, keys or models in the folder of a job that is over; what tells how it went stays."""
    folders = []
    for path in work.glob("*"):
        if path.is_dir() and not path.is_symlink():
            folders.append(path)
        elif path.name not in _KEPT and not path.name.startswith(_JOURNAL):
            path.unlink(missing_ok=True)
    for path in folders:
        try:
            _remove(path)
        except OSError as error:
            logger.warning("%s could not be removed: %s", path, error.strerror)


def _remove(folder: Path) -> None:
    """Remove a folder of whatever depth and permissions: its folders move up beside it first.

    shutil.rmtree follows a hostile job down until the stack or the open files end.
    """
    pending = [folder]
    while pending:
        current = pending.pop()
        current.chmod(0o700)
        for path in list(current.iterdir()):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # who may not write into a folder may not move it either
                pending.append(path.rename(folder.with_name(f".{secrets.token_hex(8)}")))
            else:
                path.unlink()
        current.rmdir()
