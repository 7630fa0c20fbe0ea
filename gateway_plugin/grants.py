"""Grants: who may have an access token for which service, and is a bearer the one it was made for?

As in the upstream gateway (RFC 7523), but what the tokens say is really checked: an assertion is good for one use, one
service and an hour at most; an access token for one service, one agreement, one asset or execution, and ten minutes.

Rule 1: a check at token issue says nothing about later: routes check the chain again when the token is used, because an
agreement may have been aborted, a workflow sold, a permission revoked in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import request

from gateway_plugin.gateway import agreement_id, did, execution_id
from nevermined_fl import permissions
from nevermined_fl.errors import InvalidRequest, PermissionDenied, Unauthenticated
from nevermined_fl.tokens import issue_access_token, verify_access_token, verify_assertion
from nevermined_fl.tokens.bearer import ACCESS_SECONDS, replay_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway_plugin.gateway import Gateway

__all__ = ["GRANT_TYPE", "SERVICES", "Bearer", "authorize", "check_bearer", "exchange", "execution_grant"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who asks, and for what. What a service does not use is empty."""

    service: str
    caller: str
    agreement: str = ""
    did: str = ""
    execution: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """What a service's tokens must say, and who may have one.

    ``upstream`` services are asked for by their path alone, as SDKs do. Ours want the whole URL: a path names no gateway,
    so a gateway that was given such an assertion could use it at another.
    """

    needs: tuple[str, ...]
    permit: Callable[[Gateway, Bearer], None]
    upstream: bool = True


def _may_execute(gateway: Gateway, bearer: Bearer) -> None:
    gateway.admit_buyer(bearer.caller)
    execution_grant(gateway, bearer)


def _may_watch(gateway: Gateway, bearer: Bearer) -> None:
    permissions.check_party(
        gateway.chain, agreement_id=bearer.agreement, caller=bearer.caller, provider=gateway.addresses()
    )


def _may_download(gateway: Gateway, bearer: Bearer) -> None:
    permissions.check_download(gateway.chain, gateway.metadata, did=bearer.did, caller=bearer.caller)


def _is_buyer(gateway: Gateway, bearer: Bearer) -> None:
    gateway.admit_buyer(bearer.caller)


def _may_ask_review(gateway: Gateway, bearer: Bearer) -> None:
    gateway.admit_buyer(bearer.caller)
    permissions.check_owner(gateway.chain, did=bearer.did, caller=bearer.caller)


SERVICES: Mapping[str, Service] = {
    "execute": Service(("sub", "did"), _may_execute),
    "compute": Service(("sub", "execution_id"), _may_watch),
    "download": Service(("did",), _may_download),
    "fl/upload": Service((), _is_buyer, upstream=False),
    "fl/review": Service(("did",), _may_ask_review, upstream=False),
}


def execution_grant(gateway: Gateway, bearer: Bearer) -> permissions.Grant:
    """Every on-chain check of an execution."""
    return permissions.check_execution(
        gateway.chain,
        gateway.metadata,
        agreement_id=bearer.agreement,
        caller=bearer.caller,
        workflow_did=bearer.did,
        provider=gateway.addresses(),
        min_blocks_left=gateway.settings.policy.min_blocks_left,
    )


def exchange(gateway: Gateway, form: Mapping[str, str]) -> dict[str, Any]:
    """Trade an assertion for an access token: the token endpoint's answer.

    Raises:
        RequestError: naming the check that failed. An assertion whose signature and times are good is used up by that.
    """
    if form.get("grant_type") != GRANT_TYPE:
        raise InvalidRequest(f"the only grant_type here is {GRANT_TYPE}", check="grant_type")
    assertion = form.get("assertion", "")
    now = gateway.clock()
    claims = verify_assertion(assertion, now=now)
    bearer = _bearer(_service_of(gateway, claims), claims)
    gateway.ledger.use_assertion(replay_id(assertion), expires=float(claims["exp"]), now=now)
    SERVICES[bearer.service].permit(gateway, bearer)
    return {
        "access_token": _access_token(gateway, bearer, now),
        "token_type": "Bearer",
        "expires_in": int(ACCESS_SECONDS),
    }


def authorize(gateway: Gateway, service: str, *, agreement: str = "", execution: str = "") -> Bearer:
    """The bearer of this request's access token, which must be for this service, agreement and execution.

    Raises:
        Unauthenticated: no token, or none of ours, or over, or another service's.
        PermissionDenied: the token is for another agreement or execution than the path.
    """
    bearer = check_bearer(gateway, service, request.headers.get("Authorization", ""))
    if agreement and bearer.agreement != agreement_id(agreement):
        raise PermissionDenied("the token is for another agreement than the path", check="token_agreement")
    if execution and bearer.execution != execution_id(execution):
        raise PermissionDenied("the token is for another execution than the path", check="token_execution")
    return bearer


def check_bearer(gateway: Gateway, service: str, header: str) -> Bearer:
    """As authorize, with the Authorization header given; needs no Flask request."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated(
            "expected the header Authorization: Bearer <access token>",
            check="token_present",
            hint=f"trade an assertion for {gateway.audience(service)} at {gateway.prefix}/oauth/token",
        )
    claims = verify_access_token(gateway.account, token.strip(), aud=gateway.audience(service), now=gateway.clock())
    return _bearer(service, claims | {"iss": claims["client_id"]})


def _service_of(gateway: Gateway, claims: Mapping[str, Any]) -> str:
    audience = claims.get("aud")
    for name, service in SERVICES.items():
        if audience == gateway.audience(name) or (service.upstream and audience == f"{gateway.prefix}/{name}"):
            return name
    raise Unauthenticated(
        f"the assertion is for {str(audience)[:100]!r}, which is not served here",
        check="token_audience",
        hint=f"services here: {', '.join(gateway.audience(name) for name in SERVICES)}",
    )


def _bearer(service: str, claims: Mapping[str, Any]) -> Bearer:
    parsers: dict[str, Callable[[object], str]] = {"sub": agreement_id, "did": did, "execution_id": execution_id}
    values = {}
    for name in SERVICES[service].needs:
        if not isinstance(claims.get(name), str):
            raise InvalidRequest(f"a token for {service} needs the claim {name!r}", check="token_claims")
        values[name] = parsers[name](claims[name])
    return Bearer(
        service=service,
        caller=claims["iss"],
        agreement=values.get("sub", ""),
        did=values.get("did", ""),
        execution=values.get("execution_id", ""),
    )


def _access_token(gateway: Gateway, bearer: Bearer, now: float) -> str:
    return issue_access_token(
        gateway.account,
        client_id=bearer.caller,
        aud=gateway.audience(bearer.service),
        sub=bearer.agreement or bearer.caller,
        did=bearer.did,
        execution_id=bearer.execution,
        now=now,
    )
