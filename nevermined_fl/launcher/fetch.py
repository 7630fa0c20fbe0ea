"""Fetch: get a file of an asset from the gateway that keeps it, and believe its digest alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nevermined_fl.errors import InvalidRequest, TransportError
from nevermined_fl.launcher.content import receive
from nevermined_fl.launcher.launcher import GATEWAY_PREFIX
from nevermined_fl.tokens import make_assertion

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.order import RemoteFile

__all__ = ["fetch", "fetch_into"]

logger = logging.getLogger(__name__)
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


async def fetch(launcher: Launcher, file: RemoteFile) -> Path:
    """The file in our own content store, fetched when it is not there yet.

    Raises:
        InvalidRequest: larger than this provider takes.
        PermissionDenied, NotFound: the gateway refuses.
        DecodeError: it is not what the DDO says it is.
        TransportError: the gateway does not answer.
    """
    if launcher.content.has(file.digest):
        return launcher.content.path(file.digest)
    most = launcher.settings.gateway.max_upload
    if file.size > most:
        raise InvalidRequest(f"{file.did} file {file.index} has {file.size} bytes; at most {most}", check="file_size")
    await fetch_into(launcher, file, launcher.content.place(file.digest))
    return launcher.content.path(file.digest)


async def fetch_into(launcher: Launcher, file: RemoteFile, target: Path) -> None:
    """Have the asset's gateway decide whether we may have the file, and put it at ``target``, whole or not at all.

    Raises:
        PermissionDenied, NotFound: the gateway refuses.
        DecodeError: it is not what the DDO says it is.
        TransportError: the gateway does not answer.
    """
    bearer = await _token(launcher, file)
    url = f"{file.gateway}{GATEWAY_PREFIX}/download/{file.index}"
    async with receive(target, digest=file.digest, size=file.size) as incoming:
        await launcher.web.download(url, incoming.feed, headers={"Authorization": f"Bearer {bearer}"})
    logger.info("fetched file %d of %s from %s", file.index, file.did, file.gateway)


async def _token(launcher: Launcher, file: RemoteFile) -> str:
    audience = f"{file.gateway}{GATEWAY_PREFIX}/download"
    assertion = make_assertion(launcher.account, aud=audience, did=file.did)
    form = {"grant_type": _GRANT, "assertion": assertion}
    _, body = await launcher.web.json("POST", f"{file.gateway}{GATEWAY_PREFIX}/oauth/token", data=form)
    token = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(token, str) or not token.isascii() or len(token) > 8192:
        raise TransportError(f"{file.gateway} gave no access token")
    return token
