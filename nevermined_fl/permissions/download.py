"""Download: may the caller have the files of this asset, and who published them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import PermissionDenied
from nevermined_fl.keys import checksum_address
from nevermined_fl.permissions.case import genuine_ddo, registered

if TYPE_CHECKING:
    from nevermined_fl.permissions.case import Case

__all__ = ["DOWNLOAD_CHECKS", "Download"]


@dataclass(frozen=True, slots=True)
class Download:
    """Files that may be handed out, if ``creator``, who sealed the DDO, had them in the first place."""

    did: str
    creator: str
    files: tuple[assets.FileEntry, ...]


def asset_registered(case: Case) -> None:
    """The asset's DID is on chain."""
    case.registration = registered(case, case.asked_did)


def download_allowed(case: Case) -> None:
    """The caller owns the asset, provides it or was granted its download."""
    if not case.chain.may_download(case.asked_did, case.caller):
        raise PermissionDenied(
            f"{case.caller} may not download {case.asked_did}", hint="its owner can allow it with grantPermission"
        )


def asset_matches_ddo(case: Case) -> None:
    """The asset's DDO is the one that was registered, so its digests are the publisher's."""
    ddo = genuine_ddo(case, case.registration)
    case.download = Download(case.asked_did, checksum_address(assets.creator(ddo)), assets.files(ddo))


DOWNLOAD_CHECKS = (asset_registered, download_allowed, asset_matches_ddo)
