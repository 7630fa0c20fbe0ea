"""Read this first: what a buyer does at a gateway, without a launcher: say who he is, upload, let others download."""

import hashlib

import pytest
from gateway_cases import algorithm, claims_of, download
from gateway_world import URL, Door
from permission_world import BUYER, HOSPITAL, STRANGER

from gateway_plugin import PREFIX
from gateway_plugin.views import plain_name


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def test_an_assertion_is_traded_for_a_token_of_ten_minutes_bound_to_what_was_asked(door):
    claims = door.order()
    answer = door.ask_token("execute", **claims)
    assert answer.headers["Cache-Control"] == "no-store"
    assert {name: answer.json[name] for name in ("token_type", "expires_in")} == {
        "token_type": "Bearer",
        "expires_in": 600,
    }
    token = claims_of(answer.json["access_token"])
    assert token["exp"] - token["iat"] == 600
    assert (token["aud"], token["sub"], token["did"]) == (f"{URL}{PREFIX}/execute", claims["sub"], claims["did"])
    assert (token["iss"], token["client_id"]) == (HOSPITAL.address, BUYER.address)


def test_an_audience_may_be_the_path_alone_as_upstream_s_sdk_writes_it(door):
    assert door.trade(door.assertion("", aud=f"{PREFIX}/execute", **door.order())).status_code == 200


def test_a_token_may_be_used_until_it_expires(door):
    headers = door.bearer("fl/upload")
    assert door.call("POST", "/fl/uploads", headers, data=b"one").status_code == 201
    door.now += 599
    assert door.call("POST", "/fl/uploads", headers, data=b"two").status_code == 201


def test_what_is_uploaded_is_named_by_its_digest_and_kept_once(door):
    digest = hashlib.sha256(b"class Mine(Trainer): ...").hexdigest()
    for status in (201, 200):
        answer = door.upload(b"class Mine(Trainer): ...")
        assert (answer.status_code, answer.json) == (status, {"sha256": digest, "size": 24})
    (file,) = (door.settings.home / "content").iterdir()
    assert (file.name, file.read_bytes(), file.stat().st_mode & 0o777) == (digest, b"class Mine(Trainer): ...", 0o600)


def test_the_same_content_counts_once_against_the_quota(door):
    for _ in range(3):
        assert door.upload(b"a" * 90_000).status_code in {200, 201}
    assert door.upload(b"b" * 60_000).status_code == 201


def test_a_refused_upload_leaves_nothing_behind(door):
    door.upload(b"a" * 90_000)
    assert door.upload(b"b" * 90_000).status_code == 409
    assert len(list((door.settings.home / "content").iterdir())) == 1


def test_the_owner_and_whom_he_grants_it_download_the_algorithm(door):
    content = b"class Mine(Trainer): ..."
    door.upload(content)
    did = algorithm(door, BUYER, content)
    door.market.chain.grant_permission(BUYER, did, STRANGER.address)
    for account in (BUYER, STRANGER):
        answer = download(door, did, account)
        assert (answer.status_code, answer.data) == (200, content)
        assert answer.headers["Content-Disposition"] == "attachment;filename=algorithm.py"
        assert answer.headers["Content-Length"] == "24"


def test_a_model_that_the_provider_made_belongs_to_the_buyer_and_is_downloaded_by_him(door):
    model = b"safetensors"
    (door.settings.home / "content" / hashlib.sha256(model).hexdigest()).write_bytes(model)
    did = algorithm(door, HOSPITAL, model)
    door.market.chain.transfer_ownership(HOSPITAL, did, BUYER.address)
    assert download(door, did).data == model


def test_a_file_s_name_cannot_write_headers():
    assert plain_name('a";\r\nSet-Cookie: x', 3) == "file-3"
    assert plain_name("../../etc/passwd", 0) == "file-0"
    assert plain_name("card.json", 1) == "card.json"


def test_the_gateway_says_who_it_is(door):
    body = door.call("GET", "/fl").json
    assert body["provider-address"] == HOSPITAL.address
    assert body["audience"] == f"{URL}{PREFIX}"
    assert body["contracts"]["DIDRegistry"] == door.market.chain.contract_address("DIDRegistry")
