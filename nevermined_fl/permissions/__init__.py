"""Permissions: may this caller run this job, see it, or download that file? Asked of the chain and of DDOs alone.

What belongs: checks over ``ports.Chain`` and ``ports.Metadata``, a function each, named as in docs/protocol.md. What does
not: tokens and HTTP (the gateway), which algorithms a provider approved and what else is running (the launcher).

Rule 1: nothing a DDO says counts before the DDO is proved to be the one that its DID and the chain fix.
Rule 2: ``wasComputeTriggered`` is never asked. It is per buyer and asset, not per agreement, and stays true for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.permissions.agreement import AGREEMENT_CHECKS, PARTY_CHECKS, blocks_needed, time_left
from nevermined_fl.permissions.case import Case, Grant, run
from nevermined_fl.permissions.download import DOWNLOAD_CHECKS, Download
from nevermined_fl.permissions.workflow import (
    JOB_CHECKS,
    WORKFLOW_CHECKS,
    workflow_owned_by_caller,
    workflow_registered,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from nevermined_fl.ports import Agreement, Chain, Metadata

__all__ = [
    "CHECKS",
    "Download",
    "Grant",
    "blocks_needed",
    "check_download",
    "check_execution",
    "check_owner",
    "check_party",
]

_ALL = (
    *AGREEMENT_CHECKS,
    *WORKFLOW_CHECKS,
    *JOB_CHECKS["participant"],
    *JOB_CHECKS["coordinator"],
    time_left,
    *DOWNLOAD_CHECKS,
)
CHECKS: tuple[str, ...] = tuple(dict.fromkeys(check.__name__ for check in _ALL))
"""Names of all checks: those of an execution in the order in which they are made, then those of a download."""


def check_execution(
    chain: Chain,
    metadata: Metadata,
    *,
    agreement_id: str,
    caller: str,
    workflow_did: str,
    provider: Collection[str],
    min_blocks_left: int,
) -> Grant:
    """May ``caller`` run ``workflow_did`` under this agreement, at the provider with these addresses?

    Raises:
        RequestError: ``check`` is one of CHECKS; InvalidRequest when a DDO is missing or not one, else PermissionDenied.
        TransportError: the chain or the metadata API did not answer.
    """
    case = Case(chain, metadata, agreement_id, caller, frozenset(provider), workflow_did, min_blocks_left)
    run(AGREEMENT_CHECKS, case)
    run(WORKFLOW_CHECKS, case)
    run(JOB_CHECKS[case.kind], case)
    run((time_left,), case)
    return case.grant()


def check_party(chain: Chain, *, agreement_id: str, caller: str, provider: Collection[str]) -> Agreement:
    """Is ``caller`` the buyer in this agreement with this provider? Whatever has become of the agreement since."""
    case = Case(chain, None, agreement_id, caller, frozenset(provider))
    run(PARTY_CHECKS, case)
    return case.agreement


def check_owner(chain: Chain, *, did: str, caller: str) -> None:
    """Does ``caller`` own this workflow today?"""
    run((workflow_registered, workflow_owned_by_caller), Case(chain, None, "", caller, asked_did=did))


def check_download(chain: Chain, metadata: Metadata, *, did: str, caller: str) -> Download:
    """May ``caller`` download the files of this asset? Which those are, and who published them."""
    case = Case(chain, metadata, "", caller, asked_did=did)
    run(DOWNLOAD_CHECKS, case)
    return case.download
