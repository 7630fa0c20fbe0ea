"""Initial: which model does a coordinator's session begin with, may its buyer have it, and how does it get into the job?

Three ways: a file that the buyer uploaded to this provider's gateway, the file of an earlier asset, or none at all, for a
participant makes it.

Rule 1: who begins with a model has it in the end, so a session begins with nothing that its buyer may not download.
Rule 2: digests are public. A file of an earlier asset is had from the gateway that the asset names, which knows who
brought it there, and never from what happens to lie here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl import assets, permissions
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.files import sha256_file
from nevermined_fl.launcher.content import copy_file
from nevermined_fl.launcher.fetch import fetch_into
from nevermined_fl.launcher.order import RemoteFile
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.store import Job
    from nevermined_fl.permissions import Grant

__all__ = ["initial_file", "place_initial"]


def initial_file(launcher: Launcher, grant: Grant) -> RemoteFile | None:
    """The file that the granted session begins with; None when a participant makes it.

    Raises:
        RequestError: ``check`` is initial_model_here, initial_asset_file, asset_registered, download_allowed or
            asset_matches_ddo; the last three of the buyer as of this provider.
    """
    if grant.plan.initial_model == FROM_PARTICIPANT:
        return None
    return _earlier(launcher, grant) if grant.plan.initial_asset else _uploaded(launcher, grant)


async def place_initial(launcher: Launcher, job: Job) -> None:
    """Put the order's initial model into the job's folder, unless it is there; a restart finds it there."""
    file, target = job.order.file, launcher.work(job.id) / "initial.safetensors"
    if file is None or await launcher.call(_is_there, target, file):
        return
    if file.gateway:
        until = job.created + launcher.settings.limits.job_seconds
        await launcher.retrying(lambda: fetch_into(launcher, file, target), until=until)
    else:
        await launcher.call(copy_file, launcher.content.path(file.digest), target)


def _uploaded(launcher: Launcher, grant: Grant) -> RemoteFile:
    digest = grant.plan.initial_model
    if not launcher.content.has(digest):
        raise InvalidRequest(
            f"the plan's initial model {digest} was not uploaded here",
            check="initial_model_here",
            hint="upload it to this gateway",
        )
    size = launcher.content.path(digest).stat().st_size
    return RemoteFile(did=grant.session_did, index=0, gateway="", digest=digest, size=size)


def _earlier(launcher: Launcher, grant: Grant) -> RemoteFile:
    chain, metadata, did = launcher.chain, launcher.metadata, grant.plan.initial_asset
    found = permissions.check_download(chain, metadata, did=did, caller=grant.agreement.consumer)
    permissions.check_download(chain, metadata, did=did, caller=launcher.account.address)
    wanted, size = grant.plan.initial_model, safetensors.file_size(grant.plan.schema)
    for index, file in enumerate(found.files):
        if f"sha256:{file.sha256}" == wanted and file.size == size:
            gateway = assets.gateway_url(metadata.resolve(did))
            return RemoteFile(did=did, index=index, gateway=gateway, digest=wanted, size=size)
    raise InvalidRequest(
        f"{did} has no file {wanted} of {size} bytes, which the plan begins with",
        check="initial_asset_file",
        hint="publish the session with continue_from, which looks the digest up",
    )


def _is_there(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_file(path) == file.digest
