"""Views: what the launcher tells of a job over HTTP, in the compute API's words and ours."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import TransportError
from nevermined_fl.launcher.events import read_events
from nevermined_fl.launcher.progress import read_progress

if TYPE_CHECKING:
    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.store import Job

__all__ = ["info", "logs", "status"]

logger = logging.getLogger(__name__)
_SETTLED = frozenset({"paid", "refunded"})


def status(launcher: Launcher, job: Job) -> dict[str, Any]:
    """The compute API's status, and with it what it lacks: stage, reason, payment, and how far the session is."""
    times: dict[str, Any] = {"status": job.status, "startedAt": _time(job.started), "finishedAt": _time(job.finished)}
    ours: dict[str, Any] = {
        "stage": job.stage,
        "reason": job.reason,
        "payment": _payment(launcher, job),
        "isolation": job.isolation,
        "attempts": job.attempts,
        "dataset": job.order.did if job.order.kind == "participant" else None,
        "progress": read_progress(launcher.work(job.id) / "status.json", job.order.members, now=launcher.clock()),
    }
    return times | {"did": job.model or None, "pods": [{"podName": job.id} | times]} | info(job) | ours


def _payment(launcher: Launcher, job: Job) -> str:
    """What the chain says of the agreement now; what it said last while it does not answer."""
    if job.finished is None or job.payment in _SETTLED:
        return job.payment
    try:
        agreement = launcher.chain.agreement(job.order.agreement)
    except TransportError as error:
        logger.debug("the chain does not answer: %s", error)
        return job.payment
    return agreement.state() if agreement else job.payment


def info(job: Job) -> dict[str, Any]:
    """Whose job it is: what a gateway binds a caller's agreement to."""
    return {
        "id": job.id,
        "kind": job.order.kind,
        "agreement": job.order.agreement,
        "workflowDid": job.order.workflow,
        "session": job.order.session,
        "consumer": job.order.consumer,
    }


def logs(launcher: Launcher, job: Job) -> list[dict[str, str]]:
    """The events of a job; raw output stays with the provider."""
    names = [metric.name for metric in job.order.plan().metrics]
    events = read_events(launcher.work(job.id) / "events.jsonl", metrics=names)
    return [{"podName": job.id, "content": json.dumps(event)} for event in events]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
