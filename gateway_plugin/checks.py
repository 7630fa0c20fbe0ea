"""Checks: the names under which this gateway itself refuses, and what each wants; docs/protocol.md lists them.

Beside them stand those of ``nevermined_fl.permissions`` and, passed through, the launcher's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHECKS"]

CHECKS: Mapping[str, str] = {
    # the request
    "http": "the path is served, with this method",
    "body_size": "the body is not larger than what is taken here",
    "body_length": "an upload says how long it is",
    "body_complete": "a body is as long as it says",
    "body_format": "a body is the form or the JSON object that the route wants",
    "query_value": "a query's value is a number in its range",
    "id_format": "DIDs, agreement ids and execution ids look like ones",
    # the assertion and the access token
    "grant_type": "the grant is a JWT bearer's (RFC 7523)",
    "token_present": "there is an access token",
    "token_malformed": "a token can be read",
    "token_type": "a token is of the kind and algorithm that this place wants",
    "token_signature": "an assertion is signed by its issuer, an access token by this gateway",
    "token_expired": "a token is of now, and an assertion lasts an hour at most",
    "token_audience": "a token is for this service of this gateway",
    "token_claims": "a token says all that the service needs to know",
    "assertion_unused": "an assertion is used once",
    "token_agreement": "the token is for the path's agreement",
    "token_execution": "the token is for the path's execution",
    "token_workflow": "the token is for the body's workflow",
    # what is asked for
    "buyer_allowed": "the provider's policy names the caller",
    "initial_model_of_caller": "the plan's initial model was uploaded here by the caller, or is an asset's, or a participant's",
    "execution_of_agreement": "the execution is one of that agreement, and of that caller",
    "upload_quota": "the buyer's uploads fit into his quota",
    "file_index": "the asset has a file of that index",
    "file_of_creator": "whoever sealed the DDO brought the file, or this provider made it",
    "file_kept_here": "the file is here",
    # not the caller's fault
    "launcher": "the launcher takes the request",
    "unreachable": "chain, metadata API and launcher answer",
    "storage_full": "there is room on the provider's disk",
    "internal": "the gateway works",
}
