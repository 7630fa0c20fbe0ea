"""``python -m participant_image FOLDER``: take part in one session with the buyer's algorithm and the provider's data.

Exit codes: 0 the session is over; 3 the coordinator was out of reach for too long, or stopped from outside: start it
again; 4 the buyer's algorithm failed; 5 the coordinator refused; 1 a bug or a missing file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from nevermined_fl import logs
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import (
    NeverminedFLError,
    RemoteProtocolError,
    RequestError,
    SettingsError,
    TrainerError,
    TransportError,
)
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.session import Plan
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers import sandbox
from nevermined_fl.trainers.child import Place, TrainerTask
from nevermined_fl.transports.http.client import HttpLink, pinned_context

__all__ = ["main"]

logger = logging.getLogger("participant_image")

_PATIENCE = 60.0
_FAREWELL = 1.5
"""Seconds for telling the coordinator that the participant was stopped: whoever stops it does not wait for long."""


def main(arguments: list[str]) -> int:
    """Run the job whose folder is named; returns the exit code."""
    logs.configure()
    if len(arguments) != 1:
        logger.error("usage: python -m participant_image FOLDER")
        return 1
    try:
        return asyncio.run(_run(Path(arguments[0]).absolute()))
    except NeverminedFLError as error:
        logger.error("%s: %s", type(error).__name__, error)  # noqa: TRY400  the sentence says it all
        return _exit_code(error)


def _exit_code(error: NeverminedFLError) -> int:
    if isinstance(error, TransportError):
        return 3
    if isinstance(error, TrainerError):
        return 4
    return 5 if isinstance(error, RequestError | RemoteProtocolError) else 1


async def _run(folder: Path) -> int:
    task = asyncio.ensure_future(_participate(folder))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logger.info("stopped")
        return 3
    return 0


async def _participate(folder: Path) -> None:
    job = _read(folder / "job.json")
    logs.bind(session=job["session"], participant=job["participant"])
    plan = Plan.from_parameters(job["parameters"], tuple(job["members"]))
    endpoint = _read(folder / "endpoint.json")
    key = JobKey.load(folder / "job.key")
    token = (folder / "join.jwt").read_text().strip()
    who = Credentials(job["session"], job["participant"], token=token, key=key, fingerprint=endpoint["fingerprint"])
    relay = folder / "relay.sock"
    link = HttpLink(
        endpoint["url"],
        key=key,
        context=pinned_context(endpoint["certificate"], endpoint["fingerprint"]),
        uds=relay if relay.exists() else None,
        patience=float(job.get("patience", _PATIENCE)),
        limit=safetensors.file_size(plan.carried()),
    )
    isolation = sandbox.isolation()
    logger.info("isolation of the algorithm: %s", isolation)
    if job.get("isolation") == "required" and isolation == "none":
        raise SettingsError("the algorithm cannot be isolated here, and the provider demands it")
    trainer = TrainerTask(_place(folder, job["entrypoint"]), plan, job.get("examples"))
    participant = Participant(plan, who, link=link, trainer=trainer, folder=folder, on_round=_note_round)
    try:
        await participant.run()
    except asyncio.CancelledError:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                await participant.leave()
        raise
    finally:
        await trainer.close()
        await link.close()


def _note_round(number: int) -> None:
    logs.bind(round=number)


def _place(folder: Path, entrypoint: str) -> Place:
    inputs = os.environ.get("NEVERMINED_INPUTS_PATH") or folder / "inputs"
    transformations = Path(os.environ.get("NEVERMINED_TRANSFORMATIONS_PATH") or folder / "transformations")
    algorithm = transformations / Path(entrypoint).name
    if not algorithm.is_file():
        raise SettingsError(f"no algorithm {algorithm.name} in {transformations}")
    return Place(algorithm, Path(inputs), folder / "scratch", models=folder / "models")


def _read(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} is missing or not JSON") from error
    return body


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
