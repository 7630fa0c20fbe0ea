"""``python -m coordinator_image FOLDER``: conduct one session, over TLS, from its start or from where it was killed.

Exit codes: 0 the session is over and ``result.json`` says how; 3 stopped before the end, start it again; 1 a bug or a
missing file.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator_image.admission import LauncherAdmission
from nevermined_fl import logs
from nevermined_fl.driver import Driver, wait_for_room
from nevermined_fl.errors import NeverminedFLError, StorageFull
from nevermined_fl.files import storage, write_atomic
from nevermined_fl.session import Plan
from nevermined_fl.transports.http.client import fingerprint_of
from nevermined_fl.transports.http.server import HttpServer, server_context

if TYPE_CHECKING:
    from nevermined_fl.ports import Admission

__all__ = ["main"]

logger = logging.getLogger("coordinator_image")

METRICS_TOKEN = "metrics.token"  # noqa: S105  a file's name
"""The file with the bearer for ``GET /v1/metrics``."""


def main(arguments: list[str]) -> int:
    """Run the job whose folder is named; returns the exit code."""
    logs.configure()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if len(arguments) != 1:
        logger.error("usage: python -m coordinator_image FOLDER")
        return 1
    try:
        return asyncio.run(_run(Path(arguments[0]).absolute()))
    except NeverminedFLError as error:
        logger.error("%s: %s", type(error).__name__, error)  # noqa: TRY400  the sentence says it all
        return 1


async def _run(folder: Path) -> int:
    task = asyncio.ensure_future(_conduct(folder))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logger.info("stopped; the journal knows where to go on")
        return 3
    return 0


async def _conduct(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    plan = Plan.from_parameters(job["parameters"], tuple(job["members"]))
    logs.bind(session=job["session"])
    admission = LauncherAdmission(folder / "admission.sock")
    driver = await _driver(folder, plan, job["session"], admission)
    server = HttpServer(
        driver.service,
        status=lambda: {"session": driver.session.id, "phase": str(driver.session.phase)},
        metrics=driver.scrape,
        metrics_bearer=_metrics_token(folder),
    )
    driver.metrics.connections = server.connections
    try:
        port = await server.start(job["host"], job["port"], server_context(folder / "tls.crt", folder / "tls.key"))
        logger.info("listening on port %d", port)
        outcome = await driver.run()
        logger.info("over: %s", outcome.reason or outcome.model)
    finally:
        await server.close()
        await admission.close()
        driver.close()


async def _driver(folder: Path, plan: Plan, session: str, admission: Admission) -> Driver:
    """The driver, as soon as the disk has room for it to begin, or to put right what was damaged."""
    while True:
        try:
            _metrics_token(folder)
            return Driver(
                plan,
                session,
                folder=folder,
                initial=folder / "initial.safetensors",
                outputs=Path(os.environ.get("NEVERMINED_OUTPUTS_PATH") or folder / "outputs"),
                admission=admission,
                fingerprint=fingerprint_of((folder / "tls.crt").read_text()),
                on_event=_note_round,
            )
        except StorageFull as full:
            await wait_for_room(folder, full)


def _note_round(line: dict[str, Any]) -> None:
    if line["event"] in {"round_started", "round_repeated", "rolled_back"}:
        logs.bind(round=line["round"])


def _metrics_token(folder: Path) -> str:
    """Made at the first start and kept: whoever scrapes need not notice a restart."""
    path = folder / METRICS_TOKEN
    if not path.exists() or not path.read_text().strip():
        with storage("the metrics' token"):
            write_atomic(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text().strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
