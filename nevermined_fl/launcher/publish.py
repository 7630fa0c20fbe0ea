"""Publish: one model, one asset, one owner, however often this is begun.

The DDO is written down before anything is registered, so that whoever continues continues with the same DID; each step
looks at the chain first. Provenance comes before the transfer: afterwards it would be refused.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets
from nevermined_fl.errors import ChainError, LocalProtocolError
from nevermined_fl.files import write_json
from nevermined_fl.launcher.settlement import activity_of
from nevermined_fl.metadata.identity import publisher

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.outcome import Outcome
    from nevermined_fl.launcher.store import Job

__all__ = ["keep_outputs", "publish_model"]

logger = logging.getLogger(__name__)
_MODEL = "application/octet-stream"
_FILES = (("model.safetensors", _MODEL), ("card.json", "application/json"))


def keep_outputs(launcher: Launcher, job: Job, outcome: Outcome) -> dict[str, Any]:
    """Copy the outputs to the content store and write down the DDO that they make; the DDO."""
    path = launcher.folder(job.id) / "model.json"
    if not path.exists():
        outputs = launcher.work(job.id) / "outputs"
        files = [_keep(launcher, outputs / name, kind) for name, kind in _FILES]
        files += [_keep(launcher, outputs / "checkpoints" / name, _MODEL) for name in outcome.checkpoints]
        write_json(path, _build(launcher, job, outcome, files))
    ddo = json.loads(path.read_text())
    if f"sha256:{assets.files(ddo)[0].sha256}" != outcome.model:
        raise LocalProtocolError(f"job {job.id} left another model than it was about to publish")
    return dict(ddo)


def publish_model(launcher: Launcher, job: Job, ddo: dict[str, Any]) -> str:
    """Register, publish, say who made it, and hand it to the session's owner; its DID.

    Raises:
        TransportError: the chain or the metadata API did not answer: call again.
    """
    chain, account, did = launcher.chain, launcher.account, str(ddo["id"])
    owner = _session_owner(launcher, job)
    registration = chain.registration(did)
    if registration is None:
        chain.register(
            account,
            seed=assets.did_seed(ddo),
            checksum=assets.registry_checksum(ddo),
            url=ddo["service"][0]["serviceEndpoint"],
        )
    launcher.metadata.publish(ddo)
    if registration is None or registration.owner == account.address:
        chain.was_associated_with(account, did=did, activity=activity_of(job.order.session))
        if owner != account.address:
            chain.transfer_ownership(account, did, owner)
    logger.info("model %s belongs to %s", did, owner)
    return did


def _session_owner(launcher: Launcher, job: Job) -> str:
    found = launcher.chain.registration(job.order.session)
    if found is None:
        raise ChainError(f"session {job.order.session} is not on chain any more", reverted=True)
    return found.owner


def _keep(launcher: Launcher, path: Path, kind: str) -> assets.FileEntry:
    digest = launcher.content.add(path)
    size = launcher.content.path(digest).stat().st_size
    return assets.FileEntry(path.name, kind, size, digest.removeprefix("sha256:"))


def _build(launcher: Launcher, job: Job, outcome: Outcome, files: list[assets.FileEntry]) -> dict[str, Any]:
    who = publisher(launcher.account, name=launcher.settings.name, metadata_url=launcher.metadata_url)
    # The job's time, not the clock's: the same job makes the same DID.
    about = assets.About(
        name=f"Model of session {job.order.session.removeprefix('did:nv:')[:8]}",
        now=job.created,
        description=_description(outcome),
        tags=("federated learning",),
    )
    return assets.build_model(
        who,
        about,
        gateway_url=launcher.settings.gateway_url(),
        session=job.order.session,
        files=files,
        metrics=outcome.metrics,
    )


def _description(outcome: Outcome) -> str:
    trained = f"Trained over {len(outcome.contributors)} datasets that stayed with their owners."
    lost = len(outcome.checkpoints_lost)
    return f"{trained} Checkpoints that were damaged and are not here: {lost}." if lost else trained
