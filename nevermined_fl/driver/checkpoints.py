"""Checkpoints: models of some rounds, kept in the outputs as far as they are whole; what is damaged is never published."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from nevermined_fl.driver.publish import publish
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import atomic_file, sha256_file, storage

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.driver.store import Store
    from nevermined_fl.session import Plan, Session
    from nevermined_fl.session.state import Round

__all__ = ["drop_damaged", "keep_checkpoints", "list_checkpoints"]

logger = logging.getLogger(__name__)


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


def list_checkpoints(session: Session, folder: Path) -> list[dict[str, Any]]:
    """Those that are there: round, file and digest."""
    found = [(done, _checkpoint(folder, done.number)) for done in session.history]
    return [
        {"round": done.number, "file": f"checkpoints/{path.name}", "sha256": _digest(session.plan, path, done)}
        for done, path in found
        if session.plan.checkpoint_every and path.exists()
    ]


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
