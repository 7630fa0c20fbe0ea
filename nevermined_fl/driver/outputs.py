"""What a session leaves in its outputs folder: the model, its card, checkpoints, and the result that says it is over.

Rule 1: ``result.json`` is written last; whoever sees it finds the rest complete. Rule 2: writing again gives the same.
Rule 3: what is published has the plan's tensors alone, whatever a strategy carries beside them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import BLOCK, atomic_file, digest_of, sha256_file, size_of, storage, write_json
from nevermined_fl.messages import VERSION
from nevermined_fl.session import Phase, ledger

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from nevermined_fl.driver.store import Store
    from nevermined_fl.session import Plan, Session
    from nevermined_fl.session.state import Round

__all__ = ["card", "drop_damaged", "keep_checkpoints", "publish", "published", "result", "stopped_early", "write"]

logger = logging.getLogger(__name__)


def write(session: Session, store: Store, folder: Path) -> str:
    """Write the outputs of a session that is over; the digest of the published model, if there is one.

    Raises:
        StorageFull: there is no room; nothing looks published.
    """
    digest = ""
    with storage("the outputs"):
        folder.mkdir(parents=True, exist_ok=True)
    drop_damaged(session, folder)
    if session.phase is Phase.FINISHED:
        keep_checkpoints(session, store, folder)
        # What is whole stays: the store's copy has outlived its second one and may be damaged by now.
        digest = published(session, folder) or publish(
            store.find(session.model), session.plan, folder / "model.safetensors"
        )
    with storage("the outputs", 64 * 1024):
        checkpoints = _checkpoints(session, folder)
        if digest:
            write_json(folder / "card.json", card(session, digest, checkpoints))
        write_json(folder / "result.json", result(session, digest, checkpoints))
    return digest


def publish(model: Path, plan: Plan, into: Path) -> str:
    """Copy the plan's tensors of a model, durably; returns the copy's digest.

    Raises:
        StorageFull: there is no room; nothing was written.
        DecodeError: the model is not the one that its name says; nothing was written.
    """
    with storage(f"{into.name}", size_of(model)), model.open("rb") as source, atomic_file(into, 0o644) as file:
        is_whole = plan.carried() == plan.schema
        digest = _copy(source, file) if is_whole else _strip(source, plan, file)
        if (digest if is_whole else sha256_file(model)) != f"sha256:{model.stem}":
            raise DecodeError(f"model {model.name} is damaged", code="digest")
        file.flush()
        os.fsync(file.fileno())
    return digest


def published(session: Session, folder: Path) -> str:
    """The digest of the model if the outputs are whole, so that nothing is needed any more; else nothing."""
    try:
        said = json.loads((folder / "result.json").read_bytes())
        digest = sha256_file(folder / "model.safetensors")
        is_whole = bool(said["session"] == session.id and said["model"] == digest)
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return digest if is_whole else ""


def keep_checkpoints(session: Session, store: Store, folder: Path) -> None:
    """Keep, durably, the models of committed rounds that the plan wants kept, as far as they are still here."""
    every = session.plan.checkpoint_every
    for done in session.history[-2:] if every else ():
        into = _checkpoint(folder, done.number)
        if done.number % every or (into.exists() and _digest(session.plan, into, done)):
            continue
        with storage("the checkpoints"):
            into.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = _publish_either(store, done.model, session.plan, into)
        except (DecodeError, FileNotFoundError) as error:
            logger.warning("no checkpoint of round %d: %s", done.number, error)
            continue
        with storage("the checkpoints"):
            if digest != done.model:
                _seal(into.with_suffix(".sha256"), digest)
            _sync(into.parent, folder)


def drop_damaged(session: Session, folder: Path) -> None:
    """A checkpoint that is not what it was is never published; it is made again while its model is here."""
    for done in session.history:
        path = _checkpoint(folder, done.number)
        if path.exists() and sha256_file(path) != _digest(session.plan, path, done):
            logger.warning("the checkpoint of round %d is damaged, and dropped", done.number)
            path.unlink()


def _publish_either(store: Store, model: str, plan: Plan, into: Path) -> str:
    """Publish that model, or its second copy where it is damaged."""
    try:
        return publish(store.path(model), plan, into)
    except (DecodeError, FileNotFoundError):
        if not store.heal(model):
            raise
        return publish(store.path(model), plan, into)


def _checkpoint(folder: Path, number: int) -> Path:
    return folder / "checkpoints" / f"round-{number}.safetensors"


def _digest(plan: Plan, checkpoint: Path, done: Round) -> str:
    """What a checkpoint must have: its model's own, or where a strategy's tensors were left out, what is sealed beside it."""
    if plan.carried() == plan.schema:
        return done.model
    try:
        return checkpoint.with_suffix(".sha256").read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""  # a killed process wrote the checkpoint and not the seal


def _seal(path: Path, digest: str) -> None:
    with atomic_file(path, 0o644) as file:
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _sync(*folders: Path) -> None:
    """Make the names in them survive the loss of power: what a checkpoint was made of goes next."""
    for folder in folders:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _checkpoints(session: Session, folder: Path) -> list[dict[str, Any]]:
    """Those that are there: round, file and digest."""
    found = [(done, _checkpoint(folder, done.number)) for done in session.history]
    return [
        {"round": done.number, "file": f"checkpoints/{path.name}", "sha256": _digest(session.plan, path, done)}
        for done, path in found
        if session.plan.checkpoint_every and path.exists()
    ]


def _lost(session: Session, checkpoints: list[dict[str, Any]]) -> list[int]:
    """Rounds whose checkpoints were damaged when their models were gone."""
    every, there = session.plan.checkpoint_every, {row["round"] for row in checkpoints}
    return [done.number for done in session.history if every and done.number % every == 0 and done.number not in there]


def _copy(source: IO[bytes], into: IO[bytes]) -> str:
    """The digest of what was copied, whatever the file's name says."""
    hasher = hashlib.sha256()
    while block := source.read(BLOCK):
        into.write(block)
        hasher.update(block)
    return digest_of(hasher)


def _strip(source: IO[bytes], plan: Plan, into: IO[bytes]) -> str:
    """The plan's tensors out of a file that has more, block by block."""
    hasher = hashlib.sha256()
    header = safetensors.header_bytes(plan.schema)
    there = safetensors.Header.parse(safetensors.header_bytes(plan.carried()))
    places = {entry.name: entry for entry in there.entries}
    into.write(header)
    hasher.update(header)
    for entry in safetensors.Header.parse(header).entries:
        source.seek(there.data_offset + places[entry.name].begin)
        left = entry.end - entry.begin
        while left:
            block = source.read(min(BLOCK, left))
            into.write(block)
            hasher.update(block)
            left -= len(block)
    return digest_of(hasher)


def result(session: Session, model: str = "", checkpoints: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """``result.json``; ``model`` is the digest of the published one."""
    finished = session.phase is Phase.FINISHED
    return {
        "session": session.id,
        "outcome": "finished" if finished else "failed",
        "reason": session.reason,
        "model": model if finished else "",
        "rounds": len(session.history),
        "stopped_early": stopped_early(session),
        "checkpoints": checkpoints or [],
        "checkpoints_lost": _lost(session, checkpoints or []),
        "contributors": _contributors(session) if finished else [],
        "history": [
            {"round": done.number, "metrics": dict(done.metrics), "participants": len(done.updates)}
            for done in session.history
        ],
    }


def stopped_early(session: Session) -> dict[str, Any] | None:
    """Why a session finished before its last round: the metric, its value, and ``target`` or ``tolerance``."""
    stop = session.plan.early_stop
    if session.phase is not Phase.FINISHED or stop is None or len(session.history) >= session.plan.rounds:
        return None
    value = dict(session.history[-1].metrics)[stop.metric]
    better = 1 if stop.goal == "max" else -1
    reached = stop.target is not None and better * value >= better * stop.target
    why = "target" if reached else "tolerance"
    return {"round": len(session.history), "metric": stop.metric, "value": value, "code": why}


def card(session: Session, model: str, checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """``card.json``: where the model comes from, in a form that a replay can be held against."""
    return {
        "session": session.id,
        "model": model,
        "initialModel": session.model_before(1),
        "plan": {"members": list(session.plan.members), "parameters": session.plan.to_parameters()},
        "metrics": dict(session.history[-1].metrics) if session.history else {},
        "rounds": [_round(done) for done in session.history],
        "stoppedEarly": stopped_early(session),
        "checkpoints": checkpoints,
        "contributors": _contributors(session),
        "versions": {
            "nevermined-fl": _version("nevermined-fl"),
            "protocol": VERSION,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _contributors(session: Session) -> list[dict[str, Any]]:
    return [
        {"participant": c.participant, "agreement": c.agreement, "rounds": list(c.rounds), "examples": c.examples}
        for c in ledger.contributions(session)
    ]


def _round(done: Round) -> dict[str, Any]:
    updates = [{"participant": u.participant, "update": u.update, "weight": u.weight} for u in done.updates]
    row = {"round": done.number, "model": done.model, "metrics": dict(done.metrics), "updates": updates}
    # The seeds of a round that was begun again are its last attempt's: a replay needs to know which that was.
    return row | ({"attempt": done.attempt} if done.attempt else {})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
