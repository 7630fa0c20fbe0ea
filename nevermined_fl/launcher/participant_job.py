"""Participant's job: from an accepted order to the data provider's money.

preparing: fetch the algorithm, make the job's key and join token. waiting: for the session record. running: the process,
behind its relay. settling: for the session's last word, which says whether this agreement is paid. Each stage may be
entered again after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl import logs
from nevermined_fl.errors import NeverminedFLError, SessionFailed, SettingsError, StorageFull, TransportError
from nevermined_fl.files import write_atomic, write_json
from nevermined_fl.launcher.attempts import run_attempts
from nevermined_fl.launcher.content import copy_file
from nevermined_fl.launcher.fetch import fetch
from nevermined_fl.launcher.inputs import lay_out
from nevermined_fl.launcher.relay import Relay
from nevermined_fl.launcher.settlement import is_contributor, record_provenance, settle
from nevermined_fl.launcher.targets import Target, parse_endpoint, resolve
from nevermined_fl.launcher.watch import RecordWatch
from nevermined_fl.permissions import blocks_needed
from nevermined_fl.ports import JobSpec
from nevermined_fl.tokens import JobKey, make_join_token

if TYPE_CHECKING:
    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.limits import Limits
    from nevermined_fl.launcher.store import Job
    from nevermined_fl.tokens import SessionRecord

__all__ = ["ENTRYPOINT", "run_participant"]

logger = logging.getLogger(__name__)
ENTRYPOINT = "participant_image"
_REASONS = {
    0: "",
    3: "the coordinator was out of reach",
    4: "the algorithm failed",
    5: "the coordinator refused",
}
_FINAL = frozenset({0, 4, 5})
_MESSAGE_BYTES = 1024**2


async def run_participant(launcher: Launcher, job: Job, limits: Limits) -> None:
    """Take the job on from the stage that it is in, to its end."""
    watch = RecordWatch(launcher, job.order)
    if job.stage in {"preparing", "waiting", "running"}:
        try:
            reason = await limits.within(_take_part(launcher, job, watch))
        except StorageFull:
            raise  # the launcher's own: when there is room the stage is entered again
        except NeverminedFLError as error:
            logger.warning("job %s: %s", job.id, error)
            reason = error.message
        launcher.store.change(job.id, stage="settling", reason=reason)
    await _settle(launcher, launcher.store.get(job.id), watch, limits)


async def _take_part(launcher: Launcher, job: Job, watch: RecordWatch) -> str:
    """Why it went wrong; empty when it went well."""
    if job.stage == "preparing":
        # Once: a process that a restarted launcher takes over is reading these very files.
        await _prepare(launcher, job)
        launcher.store.change(job.id, stage="waiting")
    await watch.until(lambda record: record.is_over() or "native" in record.endpoints)
    if job.started is None:
        until = job.created + launcher.settings.limits.job_seconds
        await launcher.patiently(_check_time, launcher, job, until=until)
    launcher.store.change(job.id, stage="running", started=job.started or launcher.clock())
    process = asyncio.ensure_future(_run(launcher, job, watch))
    over = asyncio.ensure_future(watch.until(lambda record: record.is_over()))
    try:
        await asyncio.wait({process, over}, return_when=asyncio.FIRST_COMPLETED)
        if not process.done() and over.result().outcome != "finished":
            return ""  # its coordinator may be gone without a word; the record has the reason
        # The coordinator told it; this is for one that is about to end.
        await asyncio.wait({process}, timeout=launcher.pace.grace)
        return process.result() if process.done() else "it went on after the session was over"
    finally:
        for task in (process, over):
            task.cancel()
        await asyncio.gather(process, over, return_exceptions=True)


def _check_time(launcher: Launcher, job: Job) -> None:
    """Ask once more what was asked when the order came: waiting for the session took blocks.

    Else a buyer who starts the coordinator late enough has a model with our updates, and his money back.

    Raises:
        SessionFailed: the agreement may time out before the session ends.
    """
    chain = launcher.chain
    agreement = chain.agreement(job.order.agreement)
    expires = agreement.compute.expires() if agreement else None
    if expires is None:
        return
    margin = launcher.settings.policy.min_blocks_left
    left = expires - chain.block_number()
    needed = blocks_needed(job.order.plan(), block_seconds=chain.block_seconds(), margin=margin)
    if left < needed:
        raise SessionFailed(f"the session began when {left} blocks were left on the agreement; it may take {needed}")


async def _prepare(launcher: Launcher, job: Job) -> None:
    order, work = job.order, launcher.work(job.id)
    for name in ("transformations", "outputs", "scratch"):
        (work / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    until = job.created + launcher.settings.limits.job_seconds
    assert order.file is not None
    trainer = order.file
    algorithm = await launcher.retrying(lambda: fetch(launcher, trainer), until=until)
    copy_file(algorithm, work / "transformations" / "algorithm.py")
    source = launcher.dataset(order.did)
    if source is None:
        raise SettingsError(f"{order.did} is not among the datasets of provider.toml")
    await launcher.call(lay_out, source, work / "inputs" / order.did.removeprefix("did:nv:"))
    await launcher.call(_identify, launcher, job)
    body = {
        "kind": order.kind,
        "session": order.session,
        "participant": order.did,
        "agreement": order.agreement,
        "parameters": order.parameters,
        "members": list(order.members),
        "entrypoint": "algorithm.py",
        "examples": order.examples,
    }
    if not launcher.settings.policy.allow_no_isolation:
        # The job is isolated; the buyer's code must be so once more inside of it, away from the job's key and relay.
        body["isolation"] = "required"
    write_json(work / "job.json", body)


def _identify(launcher: Launcher, job: Job) -> None:
    """The job's key and its join token. The key stays over restarts, so that the participant stays the same."""
    order, work = job.order, launcher.work(job.id)
    if not (work / "job.key").exists():
        JobKey.create().save(work / "job.key")
    token = make_join_token(
        launcher.account,
        session=order.session,
        did=order.did,
        agreement=order.agreement,
        thumbprint=JobKey.load(work / "job.key").thumbprint,
        ttl=launcher.settings.limits.job_seconds,
    )
    write_atomic(work / "join.jwt", token)


async def _run(launcher: Launcher, job: Job, watch: RecordWatch) -> str:
    """Run the process to its end; why it went wrong, or nothing."""
    record = await watch.until(_any)
    if record.is_over():
        raise SessionFailed(f"the session is over: {record.reason or record.outcome}")
    relay = await _open_relay(launcher, job, record)
    try:
        spec = _spec(launcher, job)
        code = await run_attempts(launcher, lambda: spec, is_final=lambda code: code in _FINAL)
    finally:
        await relay.close()
    return _REASONS.get(code, f"the participant ended with code {code}")


def _any(_: SessionRecord) -> bool:
    return True


async def _open_relay(launcher: Launcher, job: Job, record: SessionRecord) -> Relay:
    work, plan = launcher.work(job.id), job.order.plan()
    host, port = parse_endpoint(record.endpoints["native"])
    until = job.created + launcher.settings.limits.job_seconds
    target = await launcher.retrying(lambda: _target(launcher, host, port), until=until)
    endpoint = {
        "url": record.endpoints["native"],
        "fingerprint": record.fingerprint,
        "certificate": record.certificate,
    }
    write_json(work / "endpoint.json", endpoint)
    # Twice over what an honest participant sends, retransmissions and restarts included; it may make the first model.
    sent = sum(tensor.size() for tensor in plan.carried()) + _MESSAGE_BYTES
    budget = 4 * (plan.rounds * (1 + plan.repeats) + 2) * sent
    relay = Relay(work / "relay.sock", target, budget=budget, proxy=launcher.settings.launcher.proxy)
    await relay.start()
    return relay


async def _target(launcher: Launcher, host: str, port: int) -> Target:
    try:
        return await resolve(host, port, private=launcher.settings.policy.allow_private_targets)
    except TransportError:
        if not launcher.settings.launcher.proxy:
            raise
        return Target(host, port, ())  # a name that the proxy alone may know


def _spec(launcher: Launcher, job: Job) -> JobSpec:
    work, limits = launcher.work(job.id), launcher.settings.limits
    return JobSpec(
        id=job.id,
        entrypoint=ENTRYPOINT,
        folder=work,
        read_only={
            "NEVERMINED_INPUTS_PATH": work / "inputs",
            "NEVERMINED_TRANSFORMATIONS_PATH": work / "transformations",
        },
        sockets=(work / "relay.sock",),
        environment={"NEVERMINED_OUTPUTS_PATH": str(work / "outputs")} | logs.environment(),
        memory=limits.memory,
        cpu_seconds=limits.cpu_seconds,
        processes=limits.processes,
    )


async def _settle(launcher: Launcher, job: Job, watch: RecordWatch, limits: Limits) -> None:
    """Wait for the session's last word, collect what it grants, and close the job.

    A participant that failed may have earned its price in earlier rounds, so this happens whatever became of it.
    """
    record = None
    with suppress(SessionFailed):
        record = await limits.within(watch.until(lambda record: record.is_over()), stoppable=False)
    if record is None:
        _close(launcher, job, "Failed", job.reason or "the session did not end before the agreement timed out")
    elif record.outcome != "finished":
        _close(launcher, job, "Failed", job.reason or f"the session failed: {record.reason}")
    elif not is_contributor(job.order, record):
        _close(launcher, job, "Failed", job.reason or "no update of this participant is in the model")
    else:
        await _collect(launcher, job, record, limits)


async def _collect(launcher: Launcher, job: Job, record: SessionRecord, limits: Limits) -> None:
    chain, account, order = launcher.chain, launcher.account, job.order
    launcher.store.change(job.id, model=record.model)
    try:
        state = await launcher.patiently(settle, chain, account, order, until=limits.overtime)
        launcher.store.change(job.id, payment=state)
        await launcher.patiently(record_provenance, chain, account, order, record.model, until=limits.overtime)
    except StorageFull:
        raise  # as above
    except NeverminedFLError as error:
        logger.exception("job %s could not be settled", job.id)
        _close(launcher, job, "Error", f"settlement: {error.message}")
        return
    _close(launcher, job, "Succeeded", "")


def _close(launcher: Launcher, job: Job, status: str, reason: str) -> None:
    now = launcher.clock()
    launcher.store.change(job.id, stage="over", status=status, reason=reason, finished=now)
    logger.info("job %s of %s: %s %s", job.id, job.order.session, status, reason)
