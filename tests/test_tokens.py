"""Tokens: what is accepted, and every way in which one can be wrong."""

from __future__ import annotations

import base64
import json
import stat

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey

from nevermined_fl.errors import SettingsError, Unauthenticated
from nevermined_fl.keys import KeyAccount
from nevermined_fl.tokens import (
    JOIN,
    RECORD,
    REPORT,
    Contributor,
    JobKey,
    SessionRecord,
    issue_access_token,
    make_assertion,
    make_join_proof,
    make_join_token,
    provider_sign,
    replay_id,
    verify_access_token,
    verify_assertion,
    verify_job,
    verify_join_proof,
    verify_join_token,
    verify_provider,
    verify_record,
)

NOW = 1_800_000_000.0
SESSION = "did:nv:" + "5e" * 32
DATASET = "did:nv:" + "da" * 32
AGREEMENT = "0x" + "a9" * 32
EXECUTE = "/api/v1/gateway/services/execute"
# secp256k1's order: (r, n - s) is as good a signature as (r, s)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def provider():
    return KeyAccount.create()


@pytest.fixture(scope="module")
def stranger():
    return KeyAccount.create()


@pytest.fixture(scope="module")
def job():
    return JobKey.create()


def segment(value) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def header_of(token) -> dict:
    first = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))


def with_payload(token, payload) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{segment(payload)}.{signature}"


def with_header(token, **changes) -> str:
    _, payload, signature = token.split(".")
    return f"{segment(header_of(token) | changes)}.{payload}.{signature}"


def other_signature(token) -> str:
    """The same statement with the other valid signature of the same key."""
    signed, _, last = token.rpartition(".")
    raw = base64.urlsafe_b64decode(last + "=" * (-len(last) % 4))
    return f"{signed}.{segment(raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32))}"


def refused(check):
    """Refused by the named check."""
    return pytest.raises(Unauthenticated, check=lambda error: error.check == check)


# --- provider ----------------------------------------------------------------------------------------------------


def test_a_providers_statement_is_read_by_who_expects_its_address(provider, stranger):
    token = provider_sign(provider, {"a": 1}, typ=RECORD)
    assert verify_provider(token, typ=RECORD, expected={stranger.address, provider.address}) == {
        "a": 1,
        "iss": provider.address,
    }


def test_nobody_can_name_another_issuer(provider, stranger):
    assert verify_provider(
        provider_sign(provider, {"iss": stranger.address}, typ=RECORD), typ=RECORD, expected={provider.address}
    ) == {"iss": provider.address}


def test_a_foreign_key_is_refused(provider, stranger):
    token = provider_sign(stranger, {"a": 1}, typ=RECORD)
    with refused("token_signer"):
        verify_provider(token, typ=RECORD, expected={provider.address})


def test_a_strangers_token_that_names_the_provider_as_issuer_is_refused(provider, stranger):
    key = ECKey.import_key({"kty": "EC", "crv": "secp256k1", **_coordinates(stranger), "d": segment(stranger.secret)})
    header = {"alg": "ES256K", "typ": RECORD, "jwk": key.as_dict(private=False)}
    token = jws.serialize_compact(header, json.dumps({"iss": provider.address}), key, ["ES256K"])
    with refused("token_signer"):
        verify_provider(token, typ=RECORD, expected={provider.address, stranger.address})


def _coordinates(account):
    jwk = header_of(provider_sign(account, {}, typ=RECORD))["jwk"]
    return {"x": jwk["x"], "y": jwk["y"]}


def test_a_header_with_the_providers_key_over_a_strangers_signature_is_refused(provider, stranger):
    token = provider_sign(stranger, {"a": 1}, typ=RECORD)
    jwk = header_of(provider_sign(provider, {}, typ=RECORD))["jwk"]
    with refused("token_signature"):
        verify_provider(with_header(token, jwk=jwk), typ=RECORD, expected={provider.address})


def test_a_tampered_payload_is_refused(provider):
    token = with_payload(provider_sign(provider, {"a": 1}, typ=RECORD), {"a": 2, "iss": provider.address})
    with refused("token_signature"):
        verify_provider(token, typ=RECORD, expected={provider.address})


def test_a_token_of_another_type_is_refused(provider):
    with refused("token_type"):
        verify_provider(provider_sign(provider, {}, typ=JOIN), typ=RECORD, expected={provider.address})


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256", "Ed25519", "EdDSA", 7, None])
def test_another_algorithm_is_refused(provider, alg):
    token = with_header(provider_sign(provider, {}, typ=RECORD), alg=alg)
    with refused("token_type"):
        verify_provider(token, typ=RECORD, expected={provider.address})


def test_an_unsigned_token_is_refused(provider):
    jwk = header_of(provider_sign(provider, {}, typ=RECORD))["jwk"]
    token = f"{segment({'alg': 'none', 'typ': RECORD, 'jwk': jwk})}.{segment({'iss': provider.address})}."
    with refused("token_type"):
        verify_provider(token, typ=RECORD, expected={provider.address})


def test_a_symmetric_signature_with_the_public_key_is_refused(provider):
    jwk = header_of(provider_sign(provider, {}, typ=RECORD))["jwk"]
    key = OctKey.import_key(json.dumps(jwk))
    token = jws.serialize_compact({"alg": "HS256", "typ": RECORD, "jwk": jwk}, b"{}", key, ["HS256"])
    with refused("token_type"):
        verify_provider(token, typ=RECORD, expected={provider.address})


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        "text",
        {},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": 1, "y": 2},
        {"kty": "oct", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": ["secp256k1"], "x": "AA", "y": "AA"},
    ],
)
def test_a_header_without_a_usable_key_is_refused(provider, jwk):
    token = with_header(provider_sign(provider, {}, typ=RECORD), jwk=jwk)
    with pytest.raises(Unauthenticated):
        verify_provider(token, typ=RECORD, expected={provider.address})


def test_further_header_fields_are_refused(provider):
    for extra in (
        {"kid": "x"},
        {"crit": ["exp"]},
        {"b64": False},
        {"x5u": "https://example.org"},
        {"jku": "https://example.org"},
    ):
        with pytest.raises(Unauthenticated):
            verify_provider(
                with_header(provider_sign(provider, {}, typ=RECORD), **extra), typ=RECORD, expected={provider.address}
            )


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "a" * 200_000,
        "é.é.é",
        "e30.e30.",
        None,
        7,
        b"e30.e30.",
        "[" * 50_000,
        f"{segment([])}.e30.e30",
    ],
)
def test_what_is_no_token_is_refused(provider, token):
    with refused("token_malformed"):
        verify_provider(token, typ=RECORD, expected={provider.address})
    with pytest.raises(Unauthenticated):
        verify_assertion(token)
    with pytest.raises(Unauthenticated):
        verify_access_token(provider, token, aud=EXECUTE)


@pytest.mark.parametrize("payload", [b"[]", b"7", b"", b"\xff", b"[" * 60_000])
def test_a_payload_that_is_no_object_is_refused(job, payload):
    with refused("token_malformed"):
        verify_job(job.sign(payload, typ=REPORT), typ=REPORT, thumbprint=job.thumbprint)


# --- join --------------------------------------------------------------------------------------------------------


def join_token(account, **changes):
    terms = {"session": SESSION, "did": DATASET, "agreement": AGREEMENT, "thumbprint": "t" * 43, "ttl": 60, "now": NOW}
    return make_join_token(account, **terms | changes)


def test_a_join_token_is_read_by_who_asks_the_chain_for_its_signers(provider):
    asked = []

    def signers(did):
        asked.append(did)
        return {provider.address}

    token = verify_join_token(join_token(provider), signers=signers, session=SESSION, now=NOW + 59)
    assert asked == [DATASET]
    assert (token.issuer, token.did, token.agreement) == (provider.address, DATASET, AGREEMENT)
    assert (token.thumbprint, token.expires) == ("t" * 43, NOW + 60)


@pytest.mark.parametrize(
    ("changes", "now", "check"),
    [
        ({}, NOW + 60, "token_expired"),
        ({"now": NOW + 100}, NOW, "token_expired"),
        ({"session": "did:nv:" + "00" * 32}, NOW, "token_audience"),
        ({"agreement": ""}, NOW, "token_claims"),
        ({"thumbprint": ""}, NOW, "token_claims"),
    ],
)
def test_a_join_token_is_refused_when_it_is_over_or_elsewhere(provider, changes, now, check):
    with refused(check):
        verify_join_token(
            join_token(provider, **changes), signers=lambda _: {provider.address}, session=SESSION, now=now
        )


def test_a_join_token_of_who_does_not_own_the_dataset_is_refused(provider, stranger):
    with refused("token_signer"):
        verify_join_token(join_token(stranger), signers=lambda _: {provider.address}, session=SESSION, now=NOW)


@pytest.mark.parametrize(
    "times", [{}, {"exp": True, "iat": 0}, {"exp": "9", "iat": 0}, {"exp": 1e999, "iat": 0}, {"exp": 10**400, "iat": 0}]
)
def test_times_that_are_no_times_are_refused(provider, times):
    payload = json.dumps({"session": SESSION, "iss": provider.address} | times).encode()
    key = ECKey.import_key({"kty": "EC", "crv": "secp256k1", **_coordinates(provider), "d": segment(provider.secret)})
    header = {"alg": "ES256K", "typ": JOIN, "jwk": key.as_dict(private=False)}
    with refused("token_expired"):
        verify_join_token(
            jws.serialize_compact(header, payload, key, ["ES256K"]), signers=lambda _: (), session=SESSION, now=NOW
        )


# --- job ---------------------------------------------------------------------------------------------------------


def test_a_job_signs_and_only_its_key_is_accepted(job):
    token = job.sign({"round": 3}, typ=REPORT)
    assert verify_job(token, typ=REPORT, thumbprint=job.thumbprint) == {"round": 3}
    with refused("token_signer"):
        verify_job(token, typ=REPORT, thumbprint=JobKey.create().thumbprint)
    with refused("token_type"):
        verify_job(token, typ=RECORD, thumbprint=job.thumbprint)
    with refused("token_signature"):
        verify_job(with_payload(token, {"round": 4}), typ=REPORT, thumbprint=job.thumbprint)


def test_bytes_are_signed_as_they_are(job):
    token = job.sign(b'{"round":3}', typ=REPORT)
    assert token.split(".")[1] == segment(b'{"round":3}')


def test_the_admitted_key_in_the_header_does_not_help_another(job):
    token = JobKey.create().sign({}, typ=REPORT)
    jwk = header_of(job.sign({}, typ=REPORT))["jwk"]
    with refused("token_signature"):
        verify_job(with_header(token, jwk=jwk), typ=REPORT, thumbprint=job.thumbprint)


def test_a_header_carries_no_private_part(job, provider):
    assert set(header_of(job.sign({}, typ=REPORT))["jwk"]) == {"kty", "crv", "x"}
    assert set(header_of(provider_sign(provider, {}, typ=REPORT))["jwk"]) == {"kty", "crv", "x", "y"}


def test_a_private_key_in_the_header_is_refused(job):
    key = OKPKey.generate_key("Ed25519")
    header = {"alg": "Ed25519", "typ": REPORT, "jwk": key.as_dict(private=True)}
    with refused("token_type"):
        verify_job(jws.serialize_compact(header, b"{}", key, ["Ed25519"]), typ=REPORT, thumbprint=key.thumbprint())


def test_a_job_key_survives_in_a_private_file(job, tmp_path):
    job.save(tmp_path / "job.key")
    assert stat.S_IMODE((tmp_path / "job.key").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["job.key"]
    again = JobKey.load(tmp_path / "job.key")
    assert again.thumbprint == job.thumbprint
    assert verify_job(again.sign({}, typ=REPORT), typ=REPORT, thumbprint=job.thumbprint) == {}
    assert json.loads((tmp_path / "job.key").read_text())["d"] not in repr(again)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"kty":"OKP","crv":"Ed25519","x":"AA"}'])
def test_what_is_no_job_key_is_said_to_be_none(tmp_path, body):
    (tmp_path / "job.key").write_text(body)
    with pytest.raises(SettingsError):
        JobKey.load(tmp_path / "job.key")
    with pytest.raises(SettingsError):
        JobKey.load(tmp_path / "absent")


def test_a_public_key_or_one_for_agreement_is_no_job_key(job, tmp_path):
    for key in (header_of(job.sign({}, typ=REPORT))["jwk"], OKPKey.generate_key("X25519").as_dict(private=True)):
        (tmp_path / "job.key").write_text(json.dumps(key))
        with pytest.raises(SettingsError, match="not a private Ed25519 key"):
            JobKey.load(tmp_path / "job.key")


def proof_check(job, **changes):
    terms = {"session": SESSION, "fingerprint": "sha256:aa", "token": "a.b.c"}
    proof = make_join_proof(job, **terms, now=NOW)
    wanted = {"thumbprint": job.thumbprint, "now": NOW + 60} | terms | changes
    return verify_join_proof(proof, **wanted)


def test_a_join_proof_is_good_for_its_session_certificate_and_token(job):
    assert proof_check(job) != proof_check(job)  # a fresh jti each time


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"session": DATASET}, "token_audience"),
        ({"fingerprint": "sha256:bb"}, "token_audience"),
        ({"token": "a.b.d"}, "token_audience"),
        ({"now": NOW + 61}, "token_expired"),
        ({"now": NOW - 61}, "token_expired"),
        ({"thumbprint": "t" * 43}, "token_signer"),
    ],
)
def test_a_join_proof_elsewhere_or_later_is_refused(job, changes, check):
    with refused(check):
        proof_check(job, **changes)


# --- record ------------------------------------------------------------------------------------------------------


def record(**changes) -> SessionRecord:
    values = {"session": SESSION, "seq": 4, "issued": NOW, "expires": NOW + 30, "phase": "reporting"}
    return SessionRecord(**values | changes)


def test_a_record_comes_back_as_it_was_signed(provider):
    whole = record(
        endpoints={"native": "https://127.0.0.1:20000"},
        fingerprint="sha256:ff",
        certificate="PEM",
        outcome="finished",
        model=DATASET,
        model_sha256="sha256:aa",
        contributors=(Contributor(DATASET, AGREEMENT),),
    )
    assert verify_record(whole.sign(provider), session=SESSION, expected={provider.address}, now=NOW) == whole
    assert whole.is_over()
    assert not record().is_over()


@pytest.mark.parametrize(
    ("changes", "now", "check"),
    [
        ({}, NOW + 30, "token_expired"),
        ({"issued": NOW + 61, "expires": NOW + 90}, NOW, "token_expired"),
        ({"session": DATASET}, NOW, "token_audience"),
        ({"seq": -1}, NOW, "token_claims"),
        ({"seq": True}, NOW, "token_claims"),
        ({"seq": 2**63}, NOW, "token_claims"),
        ({"phase": ""}, NOW, "token_claims"),
        ({"endpoints": {"native": 7}}, NOW, "token_claims"),
        ({"reason": None}, NOW, "token_claims"),
        ({"contributors": (Contributor(DATASET, ""),)}, NOW, "token_claims"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(provider, changes, now, check):
    with refused(check):
        verify_record(record(**changes).sign(provider), session=SESSION, expected={provider.address}, now=now)


def test_a_record_of_a_stranger_is_refused(provider, stranger):
    with refused("token_signer"):
        verify_record(record().sign(stranger), session=SESSION, expected={provider.address}, now=NOW)


# --- bearer ------------------------------------------------------------------------------------------------------


def test_an_assertion_is_traded_for_an_access_token(provider, stranger):
    assertion = make_assertion(stranger, aud=EXECUTE, sub=AGREEMENT, did=DATASET, now=NOW)
    claims = verify_assertion(assertion, audiences={EXECUTE}, now=NOW + 299)
    assert (claims["iss"], claims["sub"], claims["did"]) == (stranger.address, AGREEMENT, DATASET)
    assert "execution_id" not in claims
    token = issue_access_token(provider, client_id=claims["iss"], aud=EXECUTE, sub=AGREEMENT, did=DATASET, now=NOW)
    access = verify_access_token(provider, token, aud=EXECUTE, now=NOW + 599)
    assert (access["client_id"], access["iss"], access["sub"]) == (stranger.address, provider.address, AGREEMENT)


@pytest.mark.parametrize(
    ("changes", "audiences", "now", "check"),
    [
        ({}, {EXECUTE}, NOW + 300, "token_expired"),
        ({"ttl": 3700}, {EXECUTE}, NOW, "token_expired"),
        ({}, {EXECUTE}, NOW - 61, "token_expired"),
        ({}, {EXECUTE + "s"}, NOW, "token_audience"),
        ({}, set(), NOW, "token_audience"),
    ],
)
def test_an_assertion_that_is_over_or_elsewhere_is_refused(stranger, changes, audiences, now, check):
    with refused(check):
        verify_assertion(make_assertion(stranger, aud=EXECUTE, now=NOW, **changes), audiences=audiences, now=now)


def test_an_assertion_in_anothers_name_is_refused(provider, stranger):
    assertion = make_assertion(stranger, aud=EXECUTE, now=NOW)
    forged = {"iss": provider.address, "aud": EXECUTE, "iat": NOW, "exp": NOW + 9}
    with refused("token_signature"):
        verify_assertion(with_payload(assertion, forged), audiences={EXECUTE}, now=NOW)


@pytest.mark.parametrize("signature", [b"", b"\x00" * 64, b"\xff" * 64, b"\x01" * 65, b"\x01" * 63])
def test_an_assertion_with_a_senseless_signature_is_refused(stranger, signature):
    signed = make_assertion(stranger, aud=EXECUTE, now=NOW).rpartition(".")[0]
    with pytest.raises(Unauthenticated):
        verify_assertion(f"{signed}.{segment(signature)}", audiences={EXECUTE}, now=NOW)


@pytest.mark.parametrize("alg", ["none", "HS256", None])
def test_an_assertion_of_another_algorithm_is_refused(stranger, alg):
    with refused("token_type"):
        verify_assertion(with_header(make_assertion(stranger, aud=EXECUTE, now=NOW), alg=alg), now=NOW)


@pytest.mark.parametrize("bytes_kept", [64, 65])
def test_a_wallets_personal_signature_is_taken(stranger, bytes_kept):
    claims = {"iss": stranger.address, "iat": NOW, "exp": NOW + 9, "eths": "personal"}
    signed = f"{segment({'alg': 'ES256K', 'typ': 'JWT'})}.{segment(claims)}"
    signature = stranger.sign_message(signed.encode())
    assert verify_assertion(f"{signed}.{segment(signature[:bytes_kept])}", now=NOW)["iss"] == stranger.address
    with refused("token_signature"):
        verify_assertion(with_payload(f"{signed}.{segment(signature)}", claims | {"exp": NOW + 8}), now=NOW)


def test_an_assertion_keeps_its_replay_id_whatever_its_signature(stranger):
    assertion = make_assertion(stranger, aud=EXECUTE, now=NOW)
    twin = other_signature(assertion)
    assert twin != assertion
    assert verify_assertion(twin, audiences={EXECUTE}, now=NOW)  # ECDSA: it is valid, too
    assert replay_id(twin) == replay_id(assertion)
    assert replay_id(make_assertion(stranger, aud=EXECUTE, now=NOW)) != replay_id(assertion)


def test_an_access_token_of_another_gateway_is_refused(provider, stranger):
    token = issue_access_token(stranger, client_id=stranger.address, aud=EXECUTE, now=NOW)
    with refused("token_signature"):
        verify_access_token(provider, token, aud=EXECUTE, now=NOW)


@pytest.mark.parametrize(
    ("aud", "now", "check"), [(EXECUTE, NOW + 600, "token_expired"), ("/x", NOW, "token_audience")]
)
def test_an_access_token_that_is_over_or_elsewhere_is_refused(provider, stranger, aud, now, check):
    token = issue_access_token(provider, client_id=stranger.address, aud=EXECUTE, now=NOW)
    with refused(check):
        verify_access_token(provider, token, aud=aud, now=now)


def test_an_assertion_is_no_access_token_even_of_the_gateway_itself(provider):
    with refused("token_type"):
        verify_access_token(provider, make_assertion(provider, aud=EXECUTE, now=NOW), aud=EXECUTE, now=NOW)


def test_an_access_token_is_no_assertion_of_the_provider_at_another_gateway(provider, stranger):
    token = issue_access_token(provider, client_id=stranger.address, aud=EXECUTE, now=NOW)
    with refused("token_type"):
        verify_assertion(token, audiences={EXECUTE}, now=NOW)
