"""The same session on one machine, free and without a chain: the same driver, participants and trainer processes.

Only the wire is another one (memory), and who may join is decided by a table instead of agreements.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.driver import Driver
from nevermined_fl.errors import PermissionDenied, SessionFailed, SettingsError
from nevermined_fl.files import sha256_bytes, write_atomic
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.ports import Admitted
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers import initial_model
from nevermined_fl.trainers.child import Place, TrainerTask
from nevermined_fl.transports.memory import FINGERPRINT, MemoryLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nevermined_fl.driver import Outcome
    from nevermined_fl.session import Plan
    from nevermined_fl.session.state import Round

__all__ = ["SimulationResult", "simulate"]

_SESSION = "did:nv:" + hashlib.sha256(b"simulation").hexdigest()


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What a simulated session gave; ``outputs`` holds model.safetensors, card.json and result.json."""

    model: bytes
    digest: str
    history: tuple[Round, ...]
    outputs: Path


def simulate(
    plan: Plan,
    algorithm: Path,
    datasets: Mapping[str, Path],
    workdir: Path,
    *,
    initial: bytes | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> SimulationResult:
    """Run a whole session locally.

    Args:
        plan: as in the session's DDO; its members are the keys of ``datasets``.
        algorithm: the buyer's file.
        datasets: file or folder of each dataset DID.
        workdir: an empty folder; everything is left in it.
        initial: the plan's initial model; made by the algorithm when not given, and by a participant where the plan says so.
        on_event: hears every structured event of the coordinator.

    Raises:
        SessionFailed: the session ended without a model; the reason.
        SettingsError: the initial model is not the plan's, or files are missing.
        TrainerError: the algorithm failed.
    """
    if set(datasets) != set(plan.members):
        raise SettingsError("the datasets are not the plan's members")
    workdir = workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    if plan.initial_model != FROM_PARTICIPANT:
        if initial is None:
            initial, _ = initial_model(algorithm, dict(plan.hyperparameters), plan.seed)
        if sha256_bytes(initial) != plan.initial_model:
            raise SettingsError("the initial model is not the one that the plan names")
        write_atomic(workdir / "initial.safetensors", initial)
    # A thread of its own: the caller may already be inside an event loop, as notebooks are.
    with ThreadPoolExecutor(1) as executor:
        federation = _Federation(plan, algorithm.resolve(), datasets, workdir)
        outcome = executor.submit(asyncio.run, federation.run(on_event)).result()
    if not outcome.finished:
        raise SessionFailed(outcome.reason)
    outputs = workdir / "coordinator" / "outputs"
    model = (outputs / "model.safetensors").read_bytes()
    return SimulationResult(model, outcome.model, outcome.history, outputs)


class _Federation:
    """One coordinator and its participants in one event loop; the buyer's code in child processes."""

    def __init__(self, plan: Plan, algorithm: Path, datasets: Mapping[str, Path], workdir: Path) -> None:
        self._plan = plan
        self._algorithm = algorithm
        self._datasets = datasets
        self._workdir = workdir
        self._keys = {did: JobKey.create() for did in sorted(datasets)}

    async def admit(self, token: str) -> Admitted:
        """The token is the DID: who is on the list may join."""
        if token not in self._keys:
            raise PermissionDenied("not a member", check="listed")
        agreement = "0x" + hashlib.sha256(token.encode()).hexdigest()
        return Admitted(token, agreement, self._keys[token].thumbprint)

    async def run(self, on_event: Callable[[dict[str, Any]], None] | None) -> Outcome:
        folder = self._workdir / "coordinator"
        driver = Driver(
            self._plan,
            _SESSION,
            folder=folder,
            initial=self._workdir / "initial.safetensors",
            outputs=folder / "outputs",
            admission=self,
            fingerprint=FINGERPRINT,
            on_event=on_event,
        )
        try:
            async with asyncio.TaskGroup() as group:
                for did in self._keys:
                    group.create_task(self._participate(driver, did))
                return await driver.run()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            driver.close()

    async def _participate(self, driver: Driver, did: str) -> None:
        folder = self._workdir / "participants" / did.removeprefix("did:nv:")
        inputs = folder / "inputs"
        await asyncio.to_thread(_provide, self._datasets[did], inputs / did.removeprefix("did:nv:"))
        place = Place(self._algorithm, inputs, folder / "scratch", folder / "raw.log", folder / "models")
        key = self._keys[did]
        trainer = TrainerTask(place, self._plan, await asyncio.to_thread(_rows, self._datasets[did]))
        who = Credentials(_SESSION, did, token=did, key=key, fingerprint=FINGERPRINT)
        link = MemoryLink(driver.service, key)
        try:
            await Participant(self._plan, who, link=link, trainer=trainer, folder=folder).run()
        finally:
            await trainer.close()


def _rows(source: Path) -> int | None:
    """As many as its DDO would say: those of a CSV file with a header; None when it is none."""
    try:
        with source.open(newline="", encoding="utf-8") as file:
            widths = [len(row) for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    return len(widths) - 1 if len(widths) > 1 and len(set(widths)) == 1 else None


def _provide(source: Path, into: Path) -> None:
    """Show a dataset in the inputs tree: linked where possible, so that nothing big is copied."""
    if not source.exists():
        raise SettingsError(f"no dataset {source}")
    into.mkdir(parents=True, exist_ok=True)
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in files:
        target = into / (path.relative_to(source) if source.is_dir() else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
