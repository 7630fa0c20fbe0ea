"""Requests that the gateway refuses, one function each, with the status and the check that the answer must name."""

import base64
import hashlib
import json
import resource
from dataclasses import replace

from flask import Flask
from gateway_world import MAX_UPLOAD, PREFIX, QUOTA, URL, Door
from permission_world import BUYER, CLINIC, HOSPITAL, STRANGER
from werkzeug.exceptions import HTTPException

from gateway_plugin.bodies import plain_http_error
from nevermined_fl import assets
from nevermined_fl.ports import ConditionState
from nevermined_fl.tokens import issue_access_token
from nevermined_fl.tokens.provider import chain_key
from nevermined_fl.tokens.statement import sign_statement

# The order of secp256k1.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OTHER_AGREEMENT = "0x" + "7" * 64
CASES = []


def refused(status, check):
    """Note a request; the function makes it at a Door and returns the answer."""

    def note(ask):
        CASES.append((ask, status, check))
        return ask

    return note


def claims_of(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# --- the token endpoint: the form -----------------------------------------------------------------------------------


@refused(400, "grant_type")
def another_grant_type(door):
    return door.trade(door.assertion("fl/upload"), grant_type="client_credentials")


@refused(400, "grant_type")
def an_empty_form(door):
    return door.call("POST", "/oauth/token")


@refused(400, "body_format")
def a_field_given_twice(door):
    return door.call("POST", "/oauth/token", data="grant_type=a&grant_type=b")


@refused(400, "body_format")
def a_form_of_seventeen_fields(door):
    return door.call("POST", "/oauth/token", data="&".join(f"f{n}=1" for n in range(17)))


@refused(400, "body_format")
def a_form_that_is_not_ascii(door):
    return door.call("POST", "/oauth/token", data=b"\xff\xfe")


@refused(413, "body_size")
def a_form_of_a_megabyte(door):
    return door.trade("a" * 1024**2)


# --- the token endpoint: the assertion -------------------------------------------------------------------------------


@refused(401, "token_malformed")
def no_assertion(door):
    return door.trade("")


@refused(401, "token_malformed")
def an_assertion_that_is_no_jwt(door):
    return door.trade("one.two")


@refused(401, "token_type")
def the_algorithm_none(door):
    claims = claims_of(door.assertion("fl/upload"))
    return door.trade(f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.")


@refused(401, "token_type")
def a_symmetric_algorithm(door):
    claims = claims_of(door.assertion("fl/upload"))
    return door.trade(f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{part(b'0' * 32)}")


@refused(401, "token_signature")
def an_assertion_in_another_s_name(door):
    claims = claims_of(door.assertion("fl/upload")) | {"iss": BUYER.address}
    return door.trade(sign_statement(claims, {"alg": "ES256K", "typ": "JWT"}, chain_key(STRANGER)))


@refused(401, "token_signature")
def an_assertion_whose_claims_were_changed(door):
    header, _, signature = door.assertion("fl/upload").split(".")
    claims = claims_of(door.assertion("fl/upload")) | {"aud": f"{URL}{PREFIX}/execute"}
    return door.trade(f"{header}.{part(claims)}.{signature}")


@refused(401, "token_expired")
def an_expired_assertion(door):
    assertion = door.assertion("fl/upload", ttl=300)
    door.now += 300
    return door.trade(assertion)


@refused(401, "token_expired")
def an_assertion_for_two_hours(door):
    return door.trade(door.assertion("fl/upload", ttl=7200))


@refused(401, "token_expired")
def an_assertion_without_an_end(door):
    claims = claims_of(door.assertion("fl/upload"))
    del claims["exp"]
    return door.trade(sign_statement(claims, {"alg": "ES256K", "typ": "JWT"}, chain_key(BUYER)))


@refused(401, "token_audience")
def an_assertion_for_another_gateway(door):
    return door.trade(door.assertion("x", aud=f"https://clinic.example{PREFIX}/execute", **door.order()))


@refused(401, "token_audience")
def an_upload_s_assertion_that_names_no_gateway(door):
    """Any gateway that received it could use it here."""
    return door.trade(door.assertion("x", aud=f"{PREFIX}/fl/upload"))


@refused(401, "token_audience")
def a_service_that_is_not_served(door):
    return door.trade(door.assertion("nft-transfer"))


@refused(401, "token_audience")
def an_audience_that_is_a_list(door):
    claims = claims_of(door.assertion("fl/upload"))
    claims["aud"] = [claims["aud"]]
    return door.trade(sign_statement(claims, {"alg": "ES256K", "typ": "JWT"}, chain_key(BUYER)))


@refused(400, "token_claims")
def an_execution_without_a_workflow(door):
    return door.ask_token("execute", sub=door.order()["sub"])


@refused(400, "id_format")
def an_agreement_id_of_another_form(door):
    return door.ask_token("execute", **door.order() | {"sub": "agreement 1"})


@refused(400, "id_format")
def an_execution_id_that_climbs_folders(door):
    return door.ask_token("compute", sub=door.order()["sub"], execution_id="../list")


@refused(401, "assertion_unused")
def a_replayed_assertion(door):
    assertion = door.assertion("fl/upload")
    assert door.trade(assertion).status_code == 200
    return door.trade(assertion)


@refused(401, "assertion_unused")
def a_replay_with_the_other_signature_that_is_as_valid(door):
    assertion = door.assertion("fl/upload")
    assert door.trade(assertion).status_code == 200
    signed, _, signature = assertion.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    return door.trade(f"{signed}.{part(other)}")


@refused(401, "assertion_unused")
def a_replay_after_the_gateway_was_started_again(door):
    assertion = door.assertion("fl/upload")
    assert door.trade(assertion).status_code == 200
    return Door(door.settings.home, door.market).trade(assertion)


# --- the token endpoint: what the chain says ---------------------------------------------------------------------------


@refused(403, "buyer_allowed")
def a_buyer_whom_the_policy_does_not_name(door):
    return door.ask_token("execute", STRANGER, **door.order())


@refused(403, "buyer_allowed")
def an_upload_by_a_stranger(door):
    return door.ask_token("fl/upload", STRANGER)


@refused(403, "agreement_exists")
def an_agreement_that_does_not_exist(door):
    return door.ask_token("execute", **door.order() | {"sub": OTHER_AGREEMENT})


@refused(403, "consumer_is_caller")
def an_agreement_of_somebody_else(door):
    agreement = door.market.order(door.market.dataset, buyer=STRANGER)
    return door.ask_token("execute", sub=agreement, did=door.market.workflow)


@refused(403, "consumer_is_caller")
def watching_somebody_else_s_job(door):
    return door.ask_token("compute", STRANGER, sub=door.order()["sub"], execution_id="nvm-fl-1")


@refused(403, "did_is_ours")
def an_agreement_with_another_provider(door):
    agreement = door.market.order(door.market.other_dataset)
    return door.ask_token("execute", sub=agreement, did=door.market.workflow)


@refused(403, "lock_fulfilled")
def an_agreement_that_is_not_paid(door):
    return door.ask_token("execute", **door.order(pay=False))


@refused(403, "timelocks_zero")
def an_agreement_with_a_timelock(door):
    return door.ask_token("execute", **door.order(timelocks=(0, 0, 9)))


@refused(403, "timeouts_supported")
def an_agreement_with_an_escrow_timeout(door):
    return door.ask_token("execute", **door.order(timeouts=(400, 0, 9)))


@refused(403, "time_left")
def an_agreement_with_a_short_timeout(door):
    return door.ask_token("execute", **door.order(timeout=20))


@refused(400, "workflow_registered")
def a_workflow_that_is_unknown(door):
    return door.ask_token("execute", **door.order() | {"did": "did:nv:" + "9" * 64})


@refused(400, "workflow_kind")
def a_workflow_of_an_unsupported_type(door):
    return door.ask_token("execute", **door.order() | {"did": door.market.algorithm})


@refused(403, "workflow_owned_by_caller")
def a_review_of_somebody_else_s_workflow(door):
    return door.ask_token("fl/review", did=door.market.publish_workflow(STRANGER))


@refused(403, "download_allowed")
def a_download_without_permission(door):
    return door.ask_token("download", STRANGER, did=door.market.algorithm)


# --- the access token --------------------------------------------------------------------------------------------------


def execute(door, agreement, headers):
    return door.call("POST", f"/execute/{agreement}", headers)


@refused(401, "token_present")
def no_access_token(door):
    return execute(door, door.order()["sub"], None)


@refused(401, "token_present")
def a_password_in_place_of_a_token(door):
    return execute(door, door.order()["sub"], {"Authorization": "Basic YTpi"})


@refused(401, "token_malformed")
def a_junk_token(door):
    return execute(door, door.order()["sub"], {"Authorization": "Bearer junk"})


@refused(401, "token_type")
def an_assertion_in_place_of_an_access_token(door):
    claims = door.order()
    return execute(door, claims["sub"], {"Authorization": f"Bearer {door.assertion('execute', HOSPITAL, **claims)}"})


@refused(401, "token_signature")
def an_access_token_of_another_gateway(door):
    claims = door.order()
    token = issue_access_token(CLINIC, client_id=BUYER.address, aud=f"{URL}{PREFIX}/execute", now=door.now, **claims)
    return execute(door, claims["sub"], {"Authorization": f"Bearer {token}"})


@refused(401, "token_expired")
def an_access_token_after_ten_minutes(door):
    claims = door.order()
    headers = door.bearer("execute", **claims)
    door.now += 600
    return execute(door, claims["sub"], headers)


@refused(401, "token_audience")
def a_token_to_watch_used_to_execute(door):
    agreement = door.order()["sub"]
    return execute(door, agreement, door.bearer("compute", sub=agreement, execution_id="nvm-fl-1"))


@refused(403, "token_agreement")
def another_agreement_in_the_path(door):
    return execute(door, door.order()["sub"], door.bearer("execute", **door.order()))


@refused(403, "token_execution")
def another_execution_in_the_path(door):
    agreement = door.order()["sub"]
    headers = door.bearer("compute", sub=agreement, execution_id="nvm-fl-1")
    return door.call("GET", f"/compute/status/{agreement}/nvm-fl-2", headers)


@refused(403, "token_workflow")
def another_workflow_in_the_body(door):
    headers = door.bearer("fl/review", did=door.market.workflow)
    body = {"algorithm": door.market.algorithm, "workflow": door.market.session}
    return door.call("POST", "/fl/reviews", headers, json=body)


@refused(403, "lock_fulfilled")
def a_token_from_before_the_chain_changed(door):
    """Permission is asked again when the token is used: a chain can reorganise, a workflow can be sold."""
    claims = door.order()
    headers = door.bearer("execute", **claims)
    object.__setattr__(door.gateway, "chain", Unpaid(door.market.chain))
    return execute(door, claims["sub"], headers)


class Unpaid:
    """The chain after the payment's block was dropped."""

    def __init__(self, chain):
        self._chain = chain

    def __getattr__(self, name):
        return getattr(self._chain, name)

    def agreement(self, agreement_id):
        found = self._chain.agreement(agreement_id)
        return replace(found, lock=replace(found.lock, state=ConditionState.UNFULFILLED))


@refused(403, "workflow_owned_by_caller")
def a_workflow_that_was_sold_after_the_token_was_issued(door):
    claims = door.order()
    headers = door.bearer("execute", **claims)
    door.market.chain.transfer_ownership(BUYER, door.market.workflow, STRANGER.address)
    return execute(door, claims["sub"], headers)


# --- bodies and queries --------------------------------------------------------------------------------------------------


@refused(413, "body_size")
def an_execution_with_a_large_body(door):
    claims = door.order()
    return door.call("POST", f"/execute/{claims['sub']}", door.bearer("execute", **claims), data=b"a" * 70_000)


@refused(400, "body_format")
def a_review_that_is_not_json(door):
    return door.call("POST", "/fl/reviews", door.bearer("fl/review", did=door.market.workflow), data=b"{")


@refused(400, "body_format")
def a_review_nested_very_deeply(door):
    return door.call("POST", "/fl/reviews", door.bearer("fl/review", did=door.market.workflow), data=b"[" * 60_000)


@refused(400, "body_format")
def a_review_that_is_a_list(door):
    return door.call("POST", "/fl/reviews", door.bearer("fl/review", did=door.market.workflow), json=[1])


@refused(400, "id_format")
def a_review_of_something_that_is_no_did(door):
    body = {"algorithm": {"id": 7}, "workflow": door.market.workflow}
    return door.call("POST", "/fl/reviews", door.bearer("fl/review", did=door.market.workflow), json=body)


@refused(400, "id_format")
def a_record_of_something_that_is_no_did(door):
    return door.call("GET", "/fl/sessions/did:nv:1/record")


@refused(400, "query_value")
def a_record_after_nothing_that_is_a_number(door):
    return door.call("GET", f"/fl/sessions/{door.market.session}/record?after=nan")


@refused(400, "query_value")
def a_record_that_is_waited_for_an_hour(door):
    return door.call("GET", f"/fl/sessions/{door.market.session}/record?wait=3600")


# --- uploads and downloads -------------------------------------------------------------------------------------------------


@refused(413, "body_size")
def an_upload_one_byte_too_large(door):
    return door.upload(b"a" * (MAX_UPLOAD + 1))


@refused(400, "body_length")
def an_upload_of_nothing(door):
    return door.upload(b"")


@refused(400, "body_complete")
def an_upload_that_breaks_off(door):
    stated = {"CONTENT_LENGTH": "500"}
    return door.call("POST", "/fl/uploads", door.bearer("fl/upload"), data=b"a" * 400, environ_overrides=stated)


@refused(409, "upload_quota")
def an_upload_beyond_the_quota(door):
    assert door.upload(b"a" * 90_000).status_code == 201
    return door.upload(b"b" * 60_001)


def algorithm(door, account, content):
    """An algorithm asset whose first file has this content."""
    files = [
        assets.FileEntry("algorithm.py", "text/x-python", len(content), hashlib.sha256(content).hexdigest()),
        assets.FileEntry("initial.safetensors", "application/octet-stream", 12, "c2" * 32),
    ]
    return door.market.publish(account, door.market.algorithm_ddo(account, files))


def download(door, did, account=BUYER, index=0):
    return door.call("GET", f"/download/{index}", door.bearer("download", account, did=did))


@refused(404, "file_index")
def a_file_that_the_asset_does_not_have(door):
    return download(door, algorithm(door, BUYER, b"code"), index=2)


@refused(403, "file_of_creator")
def a_file_that_was_never_uploaded(door):
    return download(door, algorithm(door, BUYER, b"code"))


@refused(403, "file_of_creator")
def a_file_of_another_buyer_s_named_in_a_ddo_of_one_s_own(door):
    door.upload(b"secret recipe")
    return download(door, algorithm(door, STRANGER, b"secret recipe"), STRANGER)


@refused(404, "file_kept_here")
def a_file_that_the_provider_removed(door):
    door.upload(b"code")
    door.gateway.content.path(hashlib.sha256(b"code").hexdigest()).unlink()
    return download(door, algorithm(door, BUYER, b"code"))


@refused(403, "download_allowed")
def a_download_after_the_asset_was_given_away(door):
    did = algorithm(door, BUYER, b"code")
    headers = door.bearer("download", did=did)
    door.market.chain.transfer_ownership(BUYER, did, STRANGER.address)
    return door.call("GET", "/download/0", headers)


def coordinator(door, **parameters):
    """The execution of a session at a compute service of this provider's."""
    market = door.market
    compute = market.publish_compute(HOSPITAL)
    claims = {"sub": market.order(compute), "did": market.publish_session(compute=compute, **parameters)}
    return execute(door, claims["sub"], door.bearer("execute", **claims))


@refused(403, "initial_model_of_caller")
def an_initial_model_that_somebody_else_uploaded(door):
    ledger = door.gateway.ledger
    with ledger.upload(STRANGER.address, "5a" * 32, size=1, quota=QUOTA, now=door.now):
        (door.settings.home / "content" / ("5a" * 32)).touch()
    return coordinator(door)


@refused(503, "unreachable")
def an_initial_model_of_one_s_own(door):
    """It goes on to the launcher, which is not there."""
    assert door.upload(b"initial").status_code == 201
    return coordinator(door, initialModel=f"sha256:{hashlib.sha256(b'initial').hexdigest()}")


@refused(503, "unreachable")
def an_initial_model_that_a_participant_makes(door):
    return coordinator(door, initialModel="participant", roundTimeout=30)


@refused(503, "unreachable")
def an_initial_model_of_an_asset(door):
    """Whether the buyer may have it is the launcher's to ask."""
    return coordinator(door, initialAsset=door.market.algorithm)


# --- the rest --------------------------------------------------------------------------------------------------------------


@refused(404, "http")
def an_unknown_path(door):
    app = Flask("own")
    app.register_error_handler(HTTPException, plain_http_error)
    return app.test_client().get("/api/v2")


@refused(503, "unreachable")
def a_launcher_that_is_down(door):
    claims = door.order()
    return execute(door, claims["sub"], door.bearer("execute", **claims))


@refused(507, "storage_full")
def an_upload_to_a_disk_that_is_full(door):
    headers = door.bearer("fl/upload")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # its databases are smaller than that
    try:
        answer = door.call("POST", "/fl/uploads", headers, data=b"a" * 50_001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((door.settings.home / "content").iterdir()) == []
    return answer


@refused(500, "internal")
def a_data_folder_that_is_gone(door):
    headers = door.bearer("fl/upload")
    (door.settings.home / "content").rmdir()
    return door.call("POST", "/fl/uploads", headers, data=b"code")
