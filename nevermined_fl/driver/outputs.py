"""What a session leaves in its outputs folder: the model, its card, checkpoints, and the result that says it is over.

Rule 1: ``result.json`` is written last; whoever sees it finds the rest complete. Rule 2: writing again gives the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nevermined_fl.driver.card import card, result
from nevermined_fl.driver.checkpoints import drop_damaged, keep_checkpoints, list_checkpoints
from nevermined_fl.driver.publish import publish
from nevermined_fl.files import sha256_file, storage, write_json
from nevermined_fl.session import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.driver.store import Store
    from nevermined_fl.session import Session

__all__ = ["published", "write"]


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
        checkpoints = list_checkpoints(session, folder)
        if digest:
            write_json(folder / "card.json", card(session, digest, checkpoints))
        write_json(folder / "result.json", result(session, digest, checkpoints))
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
