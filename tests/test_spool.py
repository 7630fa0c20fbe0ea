"""The spool: no byte too many, nothing unverified under a digest's name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, RemoteProtocolError
from nevermined_fl.spool import Spool

TENSORS = {
    "a": np.arange(300_000, dtype=np.float32),
    "b": np.linspace(-1, 1, 7),
    "c": np.ones(3, np.float16),
}
SCHEMA = safetensors.schema_of(TENSORS)


def body(**changes):
    return safetensors.dump(TENSORS | changes)


def digest(raw):
    return "sha256:" + hashlib.sha256(raw).hexdigest()


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", SCHEMA)
    yield spool
    spool.close()


def put(spool, raw, participant="alice", number=1, name=None):
    sink = spool.open(participant, number, name or digest(raw), len(raw))
    for start in range(0, len(raw), 70_001):
        sink.write(raw[start : start + 70_001])
    sink.commit()
    return spool.path(participant, number, name or digest(raw))


def test_an_update_is_there_once_it_was_verified(spool):
    raw = body()
    sink = spool.open("alice", 1, digest(raw), len(raw))
    sink.write(raw)
    assert not spool.has("alice", 1, digest(raw))
    sink.commit()
    sink.commit()
    assert spool.path("alice", 1, digest(raw)).read_bytes() == raw
    assert spool.open("alice", 1, digest(raw), len(raw)).offset == len(raw)


def test_an_upload_goes_on_after_a_restart_and_in_a_new_sink(tmp_path, spool):
    raw = body()
    spool.open("alice", 1, digest(raw), len(raw)).write(raw[:400_003])
    second = Spool(tmp_path / "spool", SCHEMA)
    sink = second.open("alice", 1, digest(raw), len(raw))
    assert sink.offset == 400_003
    sink.write(raw[400_003:500_000])
    third = second.open("alice", 1, digest(raw), len(raw))
    with pytest.raises(RemoteProtocolError, match="anew"):
        sink.write(raw[500_000:])
    assert third.offset == 500_000
    third.write(raw[500_000:])
    third.commit()
    assert second.path("alice", 1, digest(raw)).read_bytes() == raw
    second.close()


def test_a_short_update_stays_and_may_be_gone_on_with(spool):
    raw = body()
    sink = spool.open("alice", 1, digest(raw), len(raw))
    sink.write(raw[:-1])
    with pytest.raises(DecodeError) as caught:
        sink.commit()
    assert caught.value.code == "truncated"
    sink.write(raw[-1:])
    sink.commit()


@pytest.mark.parametrize("tensor", sorted(TENSORS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_at_the_end_of_every_tensor(spool, tensor, value):
    wrong = TENSORS[tensor].copy()
    wrong[-1] = value
    with pytest.raises(DecodeError) as caught:
        put(spool, body(**{tensor: wrong}))
    assert caught.value.code == "not_finite"


def test_nothing_is_stored_beyond_the_size_of_an_update(spool, tmp_path):
    raw = body()
    with pytest.raises(DecodeError, match="bytes, not"):
        spool.open("alice", 1, digest(raw), len(raw) + 1)
    sink = spool.open("alice", 1, digest(raw), len(raw))
    sink.write(raw)
    with pytest.raises(DecodeError, match="more came"):
        sink.write(b"x")
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) < len(raw) + 16


def test_a_wrong_header_is_refused_as_soon_as_it_is_there(spool, tmp_path):
    raw = safetensors.dump(TENSORS | {"b": np.linspace(-1, 1, 7).reshape(1, 7)})
    padded = raw[: len(body())].ljust(len(body()), b"\0")
    sink = spool.open("alice", 1, digest(padded), len(padded))
    with pytest.raises(DecodeError) as caught:
        sink.write(padded[:2000])
    assert caught.value.code == "schema"
    assert not any((tmp_path / "spool").iterdir())


def test_what_is_not_what_its_digest_names_is_dropped(spool, tmp_path):
    with pytest.raises(DecodeError) as caught:
        put(spool, body(), name=digest(b"other"))
    assert caught.value.code == "digest"
    assert not any((tmp_path / "spool").iterdir())


@pytest.mark.parametrize("name", ["sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_a_name_that_is_no_digest_opens_no_file(spool, name):
    with pytest.raises(DecodeError):
        spool.open("alice", 1, name, spool.update_size)


def test_a_new_update_of_a_round_drops_the_participants_old_one_alone(spool, tmp_path):
    first, second = body(), body(c=np.zeros(3, np.float16))
    put(spool, first, "alice")
    put(spool, first, "bob")
    put(spool, second, "alice")
    assert [spool.has(who, 1, digest(raw)) for who, raw in [("alice", first), ("alice", second), ("bob", first)]] == [
        False,
        True,
        True,
    ]
    spool.discard("bob", 1, digest(first))
    put(spool, first, "alice", 2)
    spool.clear(1)
    assert len(list((tmp_path / "spool").iterdir())) == 1
    assert spool.has("alice", 2, digest(first))


def test_who_asks_for_many_digests_holds_one_sink(spool):
    size = len(body())
    for number in range(50):
        spool.open("alice", 1, f"sha256:{number:064x}", size)
    spool.open("bob", 2, digest(body()), size)
    assert len(spool._sinks) == 2
    spool.clear(1)
    assert len(spool._sinks) == 1
