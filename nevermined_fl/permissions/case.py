"""Case: the facts that checks share, each filled in by the check that established it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest, LocalProtocolError, NotFound, PermissionDenied, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nevermined_fl.permissions.download import Download
    from nevermined_fl.ports import Agreement, Chain, Metadata, Registration
    from nevermined_fl.session.plan import Plan

    Check = Callable[["Case"], None]

__all__ = ["Case", "Grant", "genuine_ddo", "registered", "run"]

# How a DDO that was edited after it was sealed shows.
_EDITED = frozenset({"ddo_checksum", "ddo_integrity", "ddo_did", "ddo_creator"})


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be run, proved. ``kind`` is ``participant`` or ``coordinator``.

    ``blocks_left`` is how long the provider can still be paid; None when the agreement never times out, which also
    means that it can never be refunded.
    """

    kind: str
    agreement: Agreement
    terms: assets.Terms
    workflow_did: str
    workflow: dict[str, Any]
    session_did: str
    session: assets.SessionSpec
    plan: Plan
    blocks_left: int | None

    @property
    def did(self) -> str:
        """The asset that was bought: a dataset or a compute service."""
        return self.agreement.did


@dataclass(slots=True)
class Case:
    """One request. The fields below ``min_blocks_left`` are unset until their check has passed.

    ``asked_did`` is the DID that the request names: a workflow to execute or an asset to download.
    """

    chain: Chain
    metadata: Metadata | None
    agreement_id: str
    caller: str
    provider: frozenset[str] = frozenset()
    asked_did: str = ""
    min_blocks_left: int = 0
    agreement: Agreement = field(init=False)
    registration: Registration = field(init=False)
    asset_kind: str = field(init=False)
    terms: assets.Terms = field(init=False)
    workflow_registration: Registration = field(init=False)
    workflow: dict[str, Any] = field(init=False)
    kind: str = field(init=False)
    session_registration: Registration = field(init=False)
    session_ddo: dict[str, Any] = field(init=False)
    session: assets.SessionSpec = field(init=False)
    plan: Plan = field(init=False)
    blocks_left: int | None = field(init=False)
    download: Download = field(init=False)

    def grant(self) -> Grant:
        """What all the checks together prove."""
        return Grant(
            kind=self.kind,
            agreement=self.agreement,
            terms=self.terms,
            workflow_did=self.asked_did,
            workflow=self.workflow,
            session_did=self.session_registration.did,
            session=self.session,
            plan=self.plan,
            blocks_left=self.blocks_left,
        )


def run(checks: Iterable[Check], case: Case) -> None:
    """Make the checks in order. Whatever refuses inside of one goes by its name, so that each name has one meaning."""
    for check in checks:
        try:
            check(case)
        except RequestError as error:
            error.check = check.__name__
            # Who is refused deep inside a DDO is at least told what the check wants.
            error.hint = error.hint or (check.__doc__ or "").split("\n", 1)[0]
            raise


def registered(case: Case, did: str) -> Registration:
    """The DID's entry on chain.

    Raises:
        InvalidRequest: there is none.
    """
    found = case.chain.registration(did)
    if found is None:
        raise InvalidRequest(f"{did} is not registered on chain", hint="check the DID, and that it is of this network")
    return found


def genuine_ddo(case: Case, registration: Registration) -> dict[str, Any]:
    """The DDO of a DID, proved to be what its creator published: DID and registered checksum follow from it.

    Raises:
        InvalidRequest: there is none, or what is there is no DDO.
        PermissionDenied: it was edited.
    """
    if case.metadata is None:
        raise LocalProtocolError("this case was opened without metadata")
    did = registration.did
    try:
        ddo = case.metadata.resolve(did)
        assets.verify_integrity(ddo, case.chain.compute_did)
    except NotFound as error:
        raise InvalidRequest(f"no DDO of {did} is published", hint="publish it to the metadata API") from error
    except InvalidRequest as error:
        if error.check in _EDITED:
            raise _edited(did, error.message) from error
        raise
    if ddo["id"] != did:
        raise _edited(did, f"it calls itself {ddo['id']}")
    if assets.registry_checksum(ddo) != registration.checksum:
        raise _edited(did, f"its checksum is {assets.registry_checksum(ddo)}, registered is {registration.checksum}")
    return ddo


def _edited(did: str, detail: str) -> PermissionDenied:
    return PermissionDenied(
        f"the DDO of {did} is not the one that was registered: {detail}",
        hint="a DDO cannot be edited after it was registered; publish a new asset",
    )
