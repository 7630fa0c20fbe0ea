"""Attempts: run a job's process, again when it lost its peer, and look after it meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.store import Job
    from nevermined_fl.ports import JobSpec

__all__ = ["run_attempts", "run_once"]

logger = logging.getLogger(__name__)


async def run_attempts(launcher: Launcher, make_spec: Callable[[], JobSpec], *, is_final: Callable[[int], bool]) -> int:
    """Start the process until an exit code is final or the provider's patience ends; the last exit code.

    Attempts are counted in the store, so that restarts of the launcher do not add up to for ever.
    """
    job_id = make_spec().id
    pause = launcher.pace.backoff
    while True:
        code = await run_once(launcher, make_spec())
        # Waited for: what a full disk made us forget would run again.
        job: Job = await launcher.patiently(launcher.store.change, job_id, exit_code=code, until=math.inf)
        if is_final(code) or job.attempts >= launcher.settings.launcher.restarts:
            return code
        launcher.store.change(job_id, attempts=job.attempts + 1)
        logger.warning("job %s ended with %d; again in %.1f s", job_id, code, pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, launcher.pace.longest)


async def run_once(launcher: Launcher, spec: JobSpec) -> int:
    """Run the process to its end; whoever cancels this ends it."""
    backend = launcher.backend
    handle = await _submit(launcher, spec)
    try:
        launcher.store.change(spec.id, status="Running", isolation=backend.isolation)
        state = await launcher.call(backend.state, handle)
        while not state.is_over():
            # A backend tells nobody when a job ends; it is asked.
            await asyncio.sleep(launcher.pace.poll)
            state = await launcher.call(backend.state, handle)
    except BaseException:
        await _end(launcher, handle)
        raise
    return -1 if state.exit_code is None else int(state.exit_code)


async def _submit(launcher: Launcher, spec: JobSpec) -> str:
    submitting = asyncio.ensure_future(launcher.call(launcher.backend.submit, spec))
    try:
        return str(await asyncio.shield(submitting))
    except asyncio.CancelledError:
        # The thread cannot be called back: let it start what it starts, then end that.
        await _end(launcher, await submitting)
        raise


async def _end(launcher: Launcher, handle: str) -> None:
    """End the process, whoever else cancels meanwhile: no job outlives a launcher that is being stopped.

    One that its buyer stops is given the time to say goodbye to its peers, who would else wait for it. The relay that
    it needs for that runs in this very loop, hence the thread. One of a launcher that is being stopped will be back.
    """
    grace = launcher.pace.farewell if launcher.store.get(handle).stopping else 0.0
    ending = asyncio.ensure_future(launcher.call(launcher.backend.stop, handle, grace=grace))
    while not ending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({ending})
    ending.result()
