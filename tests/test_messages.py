"""Messages survive the wire, and nothing else does."""

import json
import math
from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nevermined_fl.errors import DecodeError
from nevermined_fl.messages import (
    MAX_MESSAGE_BYTES,
    MESSAGES,
    VERSION,
    Evaluate,
    Evaluated,
    Finish,
    Initialize,
    Joined,
    JoinRequest,
    Report,
    Train,
    Verdict,
    Wait,
    decode,
    encode,
)

DIGEST = "sha256:" + "a" * 64
ALL = [
    JoinRequest("token", "proof"),
    Joined("did:nv:a", "did:nv:s", "bearer", {"rounds": 3, "schema": [{"shape": [2]}], "note": None}),
    Wait(3),
    Initialize(2, 7, 59.5),
    Train(4, 1, DIGEST, 2**63 - 1, 59.5),
    Train(4, 1, DIGEST, 2**63 - 1, 59.5, attempt=2),
    Evaluate(5, 1, DIGEST, 0.0),
    Finish(6, "failed", "too few participants"),
    Report("did:nv:s", 1, DIGEST, DIGEST, 100, {"loss": 0.25}, attempt=1),
    Evaluated("did:nv:s", 1, DIGEST, 100),
    Verdict(accepted=False, code="late", message="é \u2028 \x00"),
]
EVERY = pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)


def test_there_is_an_example_of_every_message():
    assert {type(message) for message in ALL} == set(MESSAGES.values())


@EVERY
def test_a_message_survives_the_wire(message):
    raw = encode(message)
    assert decode(raw) == message
    assert decode(raw.decode(), type(message)) == message
    assert encode(decode(raw)) == raw


@EVERY
def test_every_truncation_is_refused(message):
    raw = encode(message)
    for length in range(len(raw)):
        with pytest.raises(DecodeError):
            decode(raw[:length])


@EVERY
def test_a_field_of_another_type_missing_or_unknown_is_refused(message):
    body = json.loads(encode(message))
    for field in fields(message):
        for wrong in (None, [1], {"k": [1]} if field.name != "parameters" else "x"):
            with pytest.raises(DecodeError, match=field.name):
                decode(json.dumps(body | {field.name: wrong}))
    for field in fields(message):
        if field.default is MISSING and field.default_factory is MISSING:
            with pytest.raises(DecodeError, match="lacks a field"):
                decode(json.dumps({name: value for name, value in body.items() if name != field.name}))
    with pytest.raises(DecodeError, match="has no field 'surplus'"):
        decode(json.dumps(body | {"surplus": 1}))


@pytest.mark.parametrize("version", [0, VERSION + 1, None, str(VERSION), [VERSION]])
def test_another_version_is_refused_with_a_hint(version):
    with pytest.raises(DecodeError, match=f"protocol version {VERSION}") as caught:
        decode(json.dumps({"v": version, "type": "wait", "seq": 1}))
    assert (caught.value.code, caught.value.hint) == ("version", "upgrade the older side")


@pytest.mark.parametrize("name", ["explode", "", None, 1, ["wait"], {}])
def test_an_unknown_type_is_refused(name):
    with pytest.raises(DecodeError, match="a known type was expected") as caught:
        decode(json.dumps({"v": VERSION, "type": name, "seq": 1}))
    assert caught.value.code == "unexpected_message"


def test_another_type_than_expected_is_refused():
    with pytest.raises(DecodeError, match="'wait' where report or evaluated was expected"):
        decode(encode(Wait(1)), Report, Evaluated)


def test_length_is_judged_first():
    exact = encode(JoinRequest("t" * (MAX_MESSAGE_BYTES - len(encode(JoinRequest("", "")))), ""))
    assert len(exact) == MAX_MESSAGE_BYTES
    assert isinstance(decode(exact), JoinRequest)
    with pytest.raises(DecodeError, match="at most") as caught:
        decode(exact + b" ")
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"v":1,"type":"wait","seq":1}{}',
        b'{"v":1,"type":"wait","seq":1,"seq":2}',
        b'{"v":1,"type":"wait","seq":NaN}',
        b'{"v":1,"type":"wait","seq":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"v":1,"type":"join","token":"\\ud800","proof":""}',
        b'{"v":1,"type":"joined","participant":"","session":"","bearer":"","parameters":{"\\ud800":1}}',
    ],
    ids=range(11),
)
def test_what_is_no_message_is_refused(raw):
    with pytest.raises(DecodeError):
        decode(raw)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (Train(4, 1, DIGEST, 1, 1.0), {"remaining": math.inf}),
        (Train(4, 1, DIGEST, 1, 1.0), {"remaining": 10**400}),
        (Train(4, 1, DIGEST, 1, 1.0), {"remaining": True}),
        (Train(4, 1, DIGEST, 1, 1.0), {"seed": 2**63}),
        (Train(4, 1, DIGEST, 1, 1.0), {"seed": -1}),
        (Train(4, 1, DIGEST, 1, 1.0), {"seed": 1.0}),
        (Train(4, 1, DIGEST, 1, 1.0), {"round": True}),
        (Train(4, 1, DIGEST, 1, 1.0), {"model": DIGEST.upper()}),
        (Train(4, 1, DIGEST, 1, 1.0), {"model": DIGEST + "\n"}),
        (Train(4, 1, DIGEST, 1, 1.0), {"model": "../" + DIGEST}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"update": "md5:" + "a" * 64}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"examples": 10**30}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"metrics": {"loss": math.nan}}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"metrics": {"loss": "0.5"}}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"metrics": {"loss": -(10**400)}}),
        (Report("s", 1, DIGEST, DIGEST, 1), {"attempt": -1}),
        (Initialize(1, 7, 1.0), {"seed": 2**63}),
        (Verdict(accepted=True), {"accepted": 1}),
    ],
)
def test_numbers_and_digests_are_judged(message, change):
    with pytest.raises(DecodeError):
        decode(json.dumps(json.loads(encode(message)) | change))


@given(st.binary(max_size=100) | st.text(max_size=50))
def test_any_bytes_are_a_message_or_refused(raw):
    with pytest.raises(DecodeError):
        decode(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(ALL), st.data())
def test_any_change_is_a_message_or_refused(message, data):
    body = json.loads(encode(message))
    name = data.draw(st.sampled_from(sorted(body)))
    try:
        came = decode(json.dumps(body | {name: data.draw(values)}))
    except DecodeError:
        return
    assert decode(encode(came)) == came
