"""Views: what each route does. The first argument of each is the gateway that the blueprint was made for."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from flask import Response, jsonify, request, send_file

from gateway_plugin.bodies import read_body, read_form, read_json
from gateway_plugin.gateway import did as parse_did
from gateway_plugin.grants import authorize, exchange, execution_grant
from nevermined_fl import __version__, permissions
from nevermined_fl.errors import InvalidRequest, NotFound, PermissionDenied, TooLarge
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from gateway_plugin.gateway import Gateway
    from gateway_plugin.grants import Bearer

__all__ = ["ROUTES", "info", "plain_name"]

_LONGEST_POLL = 30.0
_CONTRACTS = ("DIDRegistry", "EscrowComputeExecutionTemplate", "EscrowPaymentCondition", "NeverminedToken")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]{0,127}")


def info(gateway: Gateway) -> Response:
    """Who this is. The RPC URL is left out: it may hold the provider's API key."""
    return jsonify(
        {
            "software": "nevermined-fl-gateway",
            "version": __version__,
            "provider-address": gateway.account.address,
            "provider-name": gateway.settings.name,
            "contracts": {name: gateway.chain.contract_address(name) for name in _CONTRACTS},
            "audience": gateway.settings.gateway_url() + gateway.prefix,
            "max-upload": gateway.settings.gateway.max_upload,
            "max-buyer-uploads": gateway.settings.gateway.max_buyer_uploads,
        }
    )


def token(gateway: Gateway) -> Response:
    """An assertion for an access token (RFC 7523)."""
    answer = jsonify(exchange(gateway, read_form()))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def execute(gateway: Gateway, agreement: str) -> Response:
    """Start the caller's job: the chain is asked again, then the launcher, which has checks of its own."""
    read_body()
    bearer = authorize(gateway, "execute", agreement=agreement)
    gateway.admit_buyer(bearer.caller)
    grant = execution_grant(gateway, bearer)
    _check_initial(gateway, grant)
    job = {
        "serviceAgreementId": bearer.agreement,
        "workflow": grant.workflow,
        "workflowDid": bearer.did,
        "consumer": bearer.caller,
    }
    return jsonify({"workflowId": gateway.launcher.start(job)})


def status(gateway: Gateway, agreement: str, execution: str) -> Response:
    """How the caller's job is doing."""
    _own_execution(gateway, agreement, execution)
    return jsonify(gateway.launcher.status(execution))


def logs(gateway: Gateway, agreement: str, execution: str) -> Response:
    """The structured events of the caller's job."""
    _own_execution(gateway, agreement, execution)
    return jsonify(gateway.launcher.logs(execution))


def stop(gateway: Gateway, agreement: str, execution: str) -> Response:
    """End the caller's job."""
    _own_execution(gateway, agreement, execution)
    return jsonify({"message": gateway.launcher.stop(execution)})


def executions(gateway: Gateway, agreement: str) -> Response:
    """Ids of the executions of the caller's agreement, for a token whose execution is ``*``."""
    bearer = _own_agreement(gateway, agreement, "*")
    return jsonify([name for name in gateway.launcher.executions(agreement) if _is_of(gateway, bearer, name)])


def download(gateway: Gateway, index: int) -> Response:
    """A file of an asset: an algorithm uploaded here, or a model made here."""
    bearer = authorize(gateway, "download")
    asset = permissions.check_download(gateway.chain, gateway.metadata, did=bearer.did, caller=bearer.caller)
    if index >= len(asset.files):
        raise NotFound(f"{bearer.did} has {len(asset.files)} files, none with index {index}", check="file_index")
    file = asset.files[index]
    # Digests are public: without this check anybody could name another's digest in a DDO of his own and fetch the file.
    if asset.creator not in gateway.addresses() and not gateway.ledger.has_upload(asset.creator, file.sha256):
        raise PermissionDenied(f"{asset.creator} has not uploaded {file.sha256} here", check="file_of_creator")
    answer = send_file(gateway.content.path(file.sha256), mimetype="application/octet-stream", etag=file.sha256)
    # Upstream's SDK cuts the name off exactly this prefix, without a space.
    answer.headers["Content-Disposition"] = f"attachment;filename={plain_name(file.name, index)}"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def plain_name(name: str, index: int) -> str:
    """A publisher's file name, or another one when it could write headers or folders."""
    return name if _PLAIN_NAME.fullmatch(name) else f"file-{index}"


def upload(gateway: Gateway) -> Response:
    """Keep a file (an algorithm, an initial model) that the caller will name by digest in a DDO."""
    bearer = authorize(gateway, "fl/upload")
    gateway.admit_buyer(bearer.caller)
    size = _upload_size(gateway)
    quota = gateway.settings.gateway.max_buyer_uploads
    with (
        gateway.content.receive(request.stream, size) as draft,
        gateway.ledger.upload(bearer.caller, draft.sha256, size=size, quota=quota, now=gateway.clock()) as new,
    ):
        draft.keep()
    answer = jsonify({"sha256": draft.sha256, "size": size})
    answer.status_code = 201 if new else 200
    return answer


def review(gateway: Gateway) -> Response:
    """Ask the provider to look at the caller's algorithm; he approves or not with ``nevermined-fl provider review``."""
    body = read_json()
    bearer = authorize(gateway, "fl/review")
    gateway.admit_buyer(bearer.caller)
    workflow = parse_did(body.get("workflow"))
    if workflow != bearer.did:
        raise PermissionDenied("the token is for another workflow than the body", check="token_workflow")
    asked = {"algorithm": parse_did(body.get("algorithm")), "workflow": workflow, "requestedBy": bearer.caller}
    return jsonify(gateway.launcher.review(asked))


def record(gateway: Gateway, session: str) -> Response:
    """The session's signed record, for anybody: who runs it, where it listens, how it ended. Long poll."""
    after, wait = _query("after", 0, math.inf), _query("wait", 0, _LONGEST_POLL)
    slot = bool(wait) and gateway.polls.acquire(blocking=False)
    try:
        # Without a slot it is answered at once and the caller asks again; nobody can occupy all threads by waiting.
        found = gateway.launcher.record(parse_did(session), after=int(after), wait=wait if slot else 0)
    finally:
        if slot:
            gateway.polls.release()
    kind = found.headers.get("Content-Type", "application/json")
    return Response(
        found.content, status=found.status_code, headers={"Content-Type": kind, "Cache-Control": "no-store"}
    )


def _check_initial(gateway: Gateway, grant: permissions.Grant) -> None:
    """Digests are public, and who begins with a model has it in the end: nobody begins with what another brought."""
    digest, caller = grant.plan.initial_model, grant.agreement.consumer
    if grant.kind != "coordinator" or digest == FROM_PARTICIPANT or grant.plan.initial_asset:
        return  # of an earlier asset the launcher asks the chain
    if not gateway.ledger.has_upload(caller, digest.removeprefix("sha256:")):
        raise PermissionDenied(
            f"{caller} has not uploaded the initial model {digest} here",
            check="initial_model_of_caller",
            hint="upload it to this gateway, or name the asset that it is a file of (continue_from)",
        )


def _own_execution(gateway: Gateway, agreement: str, execution: str) -> None:
    """Upstream's gateway shows any execution to any buyer; here it must be of this agreement, and that the caller's."""
    bearer = _own_agreement(gateway, agreement, execution)
    if not _is_of(gateway, bearer, execution):
        raise PermissionDenied(
            f"execution {execution} is not one of agreement {agreement}", check="execution_of_agreement"
        )


def _own_agreement(gateway: Gateway, agreement: str, execution: str) -> Bearer:
    read_body()
    bearer = authorize(gateway, "compute", agreement=agreement, execution=execution)
    permissions.check_party(
        gateway.chain, agreement_id=bearer.agreement, caller=bearer.caller, provider=gateway.addresses()
    )
    return bearer


def _is_of(gateway: Gateway, bearer: Bearer, execution: str) -> bool:
    job = gateway.launcher.info(execution)
    return str(job.get("agreement")).lower() == bearer.agreement and job.get("consumer") == bearer.caller


def _upload_size(gateway: Gateway) -> int:
    size, most = request.content_length, gateway.settings.gateway.max_upload
    if not size:
        raise InvalidRequest("an upload states a Content-Length above 0", check="body_length")
    if size > most:
        raise TooLarge(f"an upload has at most {most} bytes, this one {size}", check="body_size")
    return size


def _query(name: str, default: float, most: float) -> float:
    text = request.args.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 <= value <= min(most, 2.0**53):
        raise InvalidRequest(f"{name} should be a number from 0 to {most:g}, got {text[:40]!r}", check="query_value")
    return value


ROUTES = (
    ("GET", "/fl", info),
    ("POST", "/oauth/token", token),
    ("POST", "/execute/<agreement>", execute),
    ("GET", "/compute/status/<agreement>/<execution>", status),
    ("GET", "/compute/logs/<agreement>/<execution>", logs),
    ("DELETE", "/compute/stop/<agreement>/<execution>", stop),
    ("GET", "/compute/list/<agreement>", executions),
    ("GET", "/download/<int:index>", download),
    ("POST", "/fl/uploads", upload),
    ("POST", "/fl/reviews", review),
    ("GET", "/fl/sessions/<session>/record", record),
)
"""Method, path below the prefix, and view; docs/protocol.md lists them."""
