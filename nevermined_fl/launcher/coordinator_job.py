"""Coordinator's job: from an accepted order to a published model.

preparing: fetch the initial model if there is one, make certificate and port. running: the process, with the session record published
as soon as it listens. publishing: the model, or the reason why there is none, then the session's last record. settling:
the compute provider's own money. Each stage may be entered again after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl import logs
from nevermined_fl.errors import BackendError, Conflict, NeverminedFLError, StorageFull
from nevermined_fl.files import write_json
from nevermined_fl.launcher.admission import AdmissionServer
from nevermined_fl.launcher.attempts import run_attempts
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.launcher.initial import place_initial
from nevermined_fl.launcher.outcome import has_outcome, read_outcome
from nevermined_fl.launcher.progress import read_progress
from nevermined_fl.launcher.publish import keep_outputs, publish_model
from nevermined_fl.launcher.records import OVER_SECONDS
from nevermined_fl.launcher.settlement import settle
from nevermined_fl.ports import JobSpec

if TYPE_CHECKING:
    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.limits import Limits
    from nevermined_fl.launcher.store import Job

__all__ = ["ENTRYPOINT", "run_coordinator"]

logger = logging.getLogger(__name__)
ENTRYPOINT = "coordinator_image"


async def run_coordinator(launcher: Launcher, job: Job, limits: Limits) -> None:
    """Take the job on from the stage that it is in, to its end."""
    if job.stage in {"preparing", "running"}:
        _reopen(launcher, job)
        reason = ""
        try:
            await limits.within(_coordinate(launcher, job))
        except StorageFull:
            raise  # the launcher's own: when there is room the stage is entered again
        except NeverminedFLError as error:
            logger.warning("job %s: %s", job.id, error)
            reason = error.message
        job = launcher.store.change(job.id, stage="publishing", reason=reason)
    if job.stage == "publishing":
        job = await _conclude(launcher, job, limits)
    if job.stage == "settling":
        await _collect(launcher, job, limits)


def _reopen(launcher: Launcher, job: Job) -> None:
    """A session that is run again is not over any more, although its last record says so."""
    last = launcher.records.last(job.order.session)
    if last is not None and last.is_over():
        launcher.records.issue(job.order.session, valid=launcher.pace.record_valid, phase="selection")


# --- running -----------------------------------------------------------------------------------------------------


async def _coordinate(launcher: Launcher, job: Job) -> None:
    order, work = job.order, launcher.work(job.id)
    outputs = work / "outputs"
    if has_outcome(outputs):
        return  # it ended while the launcher was not there to see it
    if job.stage == "preparing":
        # Once: a process that a restarted launcher takes over is reading these very files.
        job = await _prepare(launcher, job)
    admissions = AdmissionServer(launcher, job.id, order, work / "admission.sock")
    await admissions.start()
    announcing = asyncio.ensure_future(_announce(launcher, job))
    try:
        spec = _spec(launcher, job)
        code = await run_attempts(launcher, lambda: spec, is_final=lambda _: has_outcome(outputs))
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
        await admissions.close()
    if not has_outcome(outputs):
        raise BackendError(f"the coordinator ended with code {code} and left no result")


async def _prepare(launcher: Launcher, job: Job) -> Job:
    order, work = job.order, launcher.work(job.id)
    (work / "outputs").mkdir(mode=0o700, parents=True, exist_ok=True)
    await place_initial(launcher, job)
    ensure_certificate(work, launcher.settings.coordinator.public_host)
    port = job.port or _reserve_port(launcher, job)
    body = {
        "kind": order.kind,
        "session": order.session,
        "parameters": order.parameters,
        "members": list(order.members),
        "host": launcher.settings.coordinator.bind_host,
        "port": port,
        "listen_url": _url(launcher, port),
    }
    write_json(work / "job.json", body)
    return launcher.store.change(job.id, stage="running", started=job.started or launcher.clock())


def _reserve_port(launcher: Launcher, job: Job) -> int:
    """A port that no live coordinator of ours has and nobody else listens on; it is the job's to its end."""
    settings = launcher.settings.coordinator
    for port in range(settings.first_port, settings.last_port + 1):
        with suppress(OSError, Conflict), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.bind_host, port))
            launcher.store.change(job.id, port=port)
            return port
    raise BackendError(f"no free port from {settings.first_port} to {settings.last_port}")


def _url(launcher: Launcher, port: int | None) -> str:
    host = launcher.settings.coordinator.public_host
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


async def _announce(launcher: Launcher, job: Job) -> None:
    """Publish the session record when the coordinator listens, renew it before it expires, and say a new phase in it.

    A phase is looked for now and then: everybody who watches the record has a signature to verify for it.
    """
    certificate = ensure_certificate(launcher.work(job.id), launcher.settings.coordinator.public_host)
    await _listening(launcher, job.port)
    often, valid, clock = launcher.pace.longest, launcher.pace.record_valid, asyncio.get_running_loop().time
    said, issued = "", clock()
    while True:
        phase = _phase(launcher, job, said)
        if phase != said or clock() - issued >= valid / 2 - often:
            try:
                launcher.records.issue(
                    job.order.session,
                    valid=valid,
                    phase=phase,
                    endpoints={"native": _url(launcher, job.port)},
                    fingerprint=certificate.fingerprint,
                    certificate=certificate.pem,
                )
                said, issued = phase, clock()
            except StorageFull as full:
                logger.error("no record of %s: %s", job.order.session, full.message)  # noqa: TRY400  it says all
        await asyncio.sleep(often)


def _phase(launcher: Launcher, job: Job, said: str) -> str:
    """Where the session is. That it is over is said by its last record, when the model is published."""
    progress = read_progress(launcher.work(job.id) / "status.json", ())
    phase = progress["phase"] if progress else "selection"
    return (said or "selection") if phase in {"finished", "failed"} else str(phase)


async def _listening(launcher: Launcher, port: int | None) -> None:
    # Published all the same after a while: participants have patience of their own.
    with suppress(TimeoutError):
        async with asyncio.timeout(launcher.pace.listening):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(launcher.settings.coordinator.bind_host, port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(launcher.pace.poll)


def _spec(launcher: Launcher, job: Job) -> JobSpec:
    work, limits = launcher.work(job.id), launcher.settings.limits
    assert job.port is not None
    return JobSpec(
        id=job.id,
        entrypoint=ENTRYPOINT,
        folder=work,
        sockets=(work / "admission.sock",),
        environment={"NEVERMINED_OUTPUTS_PATH": str(work / "outputs")} | logs.environment(),
        listen=(launcher.settings.coordinator.bind_host, job.port),
        memory=limits.memory,
        cpu_seconds=limits.cpu_seconds,
        processes=limits.processes,
    )


# --- publishing and settling ---------------------------------------------------------------------------------------


async def _conclude(launcher: Launcher, job: Job, limits: Limits) -> Job:
    """Publish the model and the session's last record; what cannot be published makes the session fail."""
    order, model = job.order, ""
    try:
        if job.reason:
            raise BackendError(job.reason)
        outcome = read_outcome(launcher.work(job.id) / "outputs", order, launcher.store.admitted(job.id))
        ddo = await launcher.call(keep_outputs, launcher, job, outcome)
        publishing = launcher.patiently(publish_model, launcher, job, ddo, until=limits.overtime)
        model = await limits.within(publishing, stoppable=False)
    except StorageFull:
        raise  # as above
    except NeverminedFLError as error:
        return _fail(launcher, job, error.message)
    # Only once: a restart in between must not say "finished" twice.
    if not _is_over(launcher, job):
        launcher.records.issue(
            order.session,
            valid=OVER_SECONDS,
            phase="finished",
            outcome="finished",
            model=model,
            model_sha256=outcome.model,
            contributors=outcome.contributors,
        )
    return launcher.store.change(job.id, stage="settling", model=model)


def _fail(launcher: Launcher, job: Job, reason: str) -> Job:
    logger.warning("session %s failed: %s", job.order.session, reason)
    if not _is_over(launcher, job):
        launcher.records.issue(job.order.session, valid=OVER_SECONDS, phase="failed", outcome="failed", reason=reason)
    return launcher.store.change(job.id, stage="over", status="Failed", reason=reason, finished=launcher.clock())


def _is_over(launcher: Launcher, job: Job) -> bool:
    """Whether this job's last record was issued already; a record of an earlier run of the session does not count."""
    last = launcher.records.last(job.order.session)
    return last is not None and last.is_over() and last.issued >= job.created


async def _collect(launcher: Launcher, job: Job, limits: Limits) -> None:
    try:
        state = await launcher.patiently(settle, launcher.chain, launcher.account, job.order, until=limits.overtime)
        status, reason = "Succeeded", ""
    except StorageFull:
        raise  # as above
    except NeverminedFLError as error:
        # The model is published and owned: only our own money is missing.
        logger.exception("job %s could not be settled", job.id)
        state, status, reason = job.payment, "Error", f"settlement: {error.message}"
    launcher.store.change(job.id, stage="over", status=status, reason=reason, finished=launcher.clock(), payment=state)
