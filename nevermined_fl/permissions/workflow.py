"""Workflow: is what the caller wants to run his own, and does it use what was bought, once and alone?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest, PermissionDenied
from nevermined_fl.permissions.case import genuine_ddo, registered
from nevermined_fl.session.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.permissions.case import Case, Check

__all__ = ["JOB_CHECKS", "WORKFLOW_CHECKS", "workflow_owned_by_caller", "workflow_registered"]

_KINDS = {"workflow": "participant", "fl-coordinator": "coordinator"}


def workflow_registered(case: Case) -> None:
    """The workflow's DID is on chain."""
    case.workflow_registration = registered(case, case.asked_did)


def workflow_owned_by_caller(case: Case) -> None:
    """The workflow is the caller's today, says the chain."""
    owner = case.workflow_registration.owner
    if owner != case.caller:
        raise PermissionDenied(
            f"the workflow {case.asked_did} belongs to {owner}, not to {case.caller}", hint="publish your own workflow"
        )


def workflow_matches_ddo(case: Case) -> None:
    """The workflow's DDO is the one that was registered."""
    case.workflow = genuine_ddo(case, case.workflow_registration)


def no_data_inputs(case: Case) -> None:
    """A coordinator sees no data."""
    if case.workflow["service"][0]["attributes"]["main"].get("type") != "fl-coordinator":
        return
    try:
        assets.session_spec(case.workflow)
    except InvalidRequest as error:
        # Judged before the shape as a whole, so that this mistake has a name; all others are workflow_kind's to say.
        if error.check == "no_data_inputs":
            raise


def workflow_kind(case: Case) -> None:
    """It is a participants' workflow or a coordinator's, and of the right shape."""
    found = assets.kind(case.workflow)
    if found not in _KINDS:
        raise InvalidRequest(
            f"main.type is {found!r}, expected {' or '.join(_KINDS)}", hint="execute a workflow's DID, not an asset's"
        )
    case.kind = _KINDS[found]
    if case.kind == "coordinator":
        # A coordinator's workflow is its session.
        case.session_registration, case.session_ddo = case.workflow_registration, case.workflow


def workflow_contains_dataset(case: Case) -> None:
    """Exactly one stage of the workflow has as its input what was bought, and that is a dataset."""
    inputs = assets.workflow_inputs(case.workflow)
    if case.agreement.did not in inputs or case.asset_kind != "dataset":
        raise PermissionDenied(
            f"the agreement is about the {case.asset_kind} {case.agreement.did}; the inputs are {', '.join(inputs)}",
            hint="use the agreement of one of the workflow's datasets",
        )


def session_registered(case: Case) -> None:
    """The workflow names a session, and that is on chain."""
    case.session_registration = registered(case, assets.session_of(case.workflow))


def session_owned_by_caller(case: Case) -> None:
    """The session is the caller's: nobody sends what he bought into somebody else's session."""
    found = case.session_registration
    if found.owner != case.caller:
        raise PermissionDenied(f"the session {found.did} belongs to {found.owner}, not to {case.caller}")


def session_matches_ddo(case: Case) -> None:
    """The session's DDO is the one that was registered."""
    case.session_ddo = genuine_ddo(case, case.session_registration)


def session_valid(case: Case) -> None:
    """The session is one, with a plan that can be run."""
    case.session = assets.session_spec(case.session_ddo)
    case.plan = Plan.from_parameters(case.session.parameters, case.session.datasets)


def session_lists_dataset(case: Case) -> None:
    """The session expects this dataset; its coordinator would refuse any other."""
    if case.agreement.did not in case.session.datasets:
        raise PermissionDenied(
            f"the session {case.session_registration.did} lists {', '.join(case.session.datasets)},"
            f" not {case.agreement.did}"
        )


def session_names_compute(case: Case) -> None:
    """The session is to be run by the compute service that was bought."""
    if case.agreement.did != case.session.compute or case.asset_kind != "compute":
        raise PermissionDenied(
            f"the session runs at {case.session.compute}; the agreement is about the {case.asset_kind} {case.agreement.did}",
            hint="use the agreement of the compute service that the session names",
        )


def inbound_offered(case: Case) -> None:
    """The compute service accepts connections; a coordinator is of no use without."""
    if not case.terms.inbound:
        raise PermissionDenied(
            f"{case.agreement.did} does not accept inbound connections",
            hint="choose a compute service with inbound: true",
        )


WORKFLOW_CHECKS = (workflow_registered, workflow_owned_by_caller, workflow_matches_ddo, no_data_inputs, workflow_kind)
JOB_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "participant": (
        workflow_contains_dataset,
        session_registered,
        session_owned_by_caller,
        session_matches_ddo,
        session_valid,
        session_lists_dataset,
    ),
    "coordinator": (session_valid, session_names_compute, inbound_offered),
}
