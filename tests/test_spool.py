"""The spool: no byte too many, nothing unverified under a digest's name."""

from __future__ import annotations

import errno
import hashlib
import os
import threading

import numpy as np
import pytest

from nevermined_fl.codecs import safetensors
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.errors import DecodeError, RemoteProtocolError, StorageFull, TransportError
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


def test_the_largest_number_is_known_from_what_came_and_from_the_file(tmp_path, spool):
    raw = body(b=np.array([1, -2, 3, -4e300, 5, 6, 7.0]))
    path = put(spool, raw)
    assert spool.peak("alice", 1, digest(raw)) == 4e300
    spool.close()
    again = Spool(tmp_path / "spool", SCHEMA)
    assert again.peak("alice", 1, digest(raw)) == 4e300
    assert again.verify("alice", 1, digest(raw))
    assert again.arrived("alice", 1) == len(raw)
    path.write_bytes(raw[:-1] + b"x")
    assert not again.verify("alice", 1, digest(raw))
    path.write_bytes(raw[:-4096])
    assert not again.verify("alice", 1, digest(raw))
    assert not again.verify("bob", 1, digest(raw))


@pytest.mark.parametrize("step", [1, 3, 7, 64, 1021])
def test_numbers_are_looked_at_however_they_are_cut(tmp_path, step):
    tensors = {"a": np.arange(-31, 30, dtype=np.float64), "b": np.array([1, -77, 5], np.float16)}
    raw = safetensors.dump(tensors)
    spool = Spool(tmp_path / "cut", safetensors.schema_of(tensors))
    sink = spool.open("alice", 1, digest(raw), len(raw))
    for start in range(0, len(raw), step):
        sink.write(raw[start : start + step])
    sink.commit()
    assert spool.peak("alice", 1, digest(raw)) == 77
    spool.close()


@pytest.mark.parametrize(
    ("schema", "data", "peak"),
    [
        ([TensorSchema("c", "BF16", (3,))], np.array([0x3F80, 0xC000, 0x0001], "<u2").tobytes(), 2.0),
        (
            [TensorSchema("s", "F32", (2,)), TensorSchema("c", "I8", (5,))],
            np.array([0.5, 0.25], "<f4").tobytes() + np.array([1, -128, 7, 8, 9], "i1").tobytes(),
            64.0,
        ),
    ],
)
def test_changes_are_taken_in_too(tmp_path, schema, data, peak):
    spool = Spool(tmp_path / "changes", schema)
    raw = safetensors.header_bytes(schema) + data
    put(spool, raw)
    assert spool.peak("alice", 1, digest(raw)) == peak
    spool.close()


def test_a_scale_below_0_is_refused_as_it_comes_and_other_numbers_below_0_are_not(tmp_path):
    scaled = [TensorSchema("s", "F32", (2,)), TensorSchema("c", "I8", (5,))]
    spool = Spool(tmp_path / "scaled", scaled)
    raw = safetensors.header_bytes(scaled) + np.array([0.5, -1e-30], "<f4").tobytes()
    sink = spool.open("alice", 1, digest(raw), len(raw) + 5)
    with pytest.raises(DecodeError, match="a scale below 0"):
        sink.write(raw)
    assert not list((tmp_path / "scaled").iterdir())
    raw = safetensors.header_bytes(scaled) + np.array([0.5, -0.0], "<f4").tobytes() + b"\xff" * 5
    assert put(spool, raw).exists()
    spool.close()


def test_a_part_that_was_damaged_while_nobody_watched_is_asked_for_anew(tmp_path, spool):
    raw = body()
    spool.open("alice", 1, digest(raw), len(raw)).write(raw[:400_000])
    [part] = (tmp_path / "spool").iterdir()
    with part.open("r+b") as file:
        file.seek(300_000)
        file.write(b"lost")
    second = Spool(tmp_path / "spool", SCHEMA)
    sink = second.open("alice", 1, digest(raw), len(raw))
    sink.write(raw[400_000:])
    with pytest.raises(TransportError, match="anew"):
        sink.commit()
    assert sink.offset == 0
    sink.write(raw)
    sink.commit()
    assert second.verify("alice", 1, digest(raw))
    second.close()


def test_a_part_whose_end_was_lost_begins_anew(tmp_path, spool):
    raw = body()
    spool.open("alice", 1, digest(raw), len(raw)).write(raw[:400_000])
    [part] = (tmp_path / "spool").iterdir()
    with part.open("r+b") as file:
        file.truncate(500_000)
    assert Spool(tmp_path / "spool", SCHEMA).open("alice", 1, digest(raw), len(raw)).offset == 0


def test_files_of_a_round_that_is_over_are_overwritten_and_go_at_the_end(tmp_path, spool):
    first, second = body(), body(c=np.zeros(3, np.float16))
    old = put(spool, first).stat().st_ino
    spool.clear(1)
    spares = tmp_path / "spool-spare"
    assert [path.stat().st_ino for path in spares.iterdir()] == [old]
    new = put(spool, second, "bob", 2)
    assert (new.stat().st_ino, new.read_bytes(), list(spares.iterdir())) == (old, second, [])
    spool.clear(2)
    spool.close()
    assert not list(spares.iterdir())


def test_a_spare_that_a_killed_process_left_is_overwritten_by_the_next(tmp_path, spool):
    old = put(spool, body()).stat().st_ino
    spool.clear(1)
    new = put(Spool(tmp_path / "spool", SCHEMA), body(c=np.zeros(3, np.float16)), "bob", 2)
    assert (new.stat().st_ino, list((tmp_path / "spool-spare").iterdir())) == (old, [])


def test_a_spare_that_is_half_overwritten_when_the_process_dies_holds_what_came(tmp_path, spool):
    first, second = body(), body(c=np.zeros(3, np.float16))
    put(spool, first)
    spool.clear(1)
    spool.open("alice", 2, digest(second), len(second)).write(second[:123_456])
    again = Spool(tmp_path / "spool", SCHEMA)
    assert again.arrived("alice", 2) == 123_456
    sink = again.open("alice", 2, digest(second), len(second))
    sink.write(second[123_456:])
    sink.commit()
    assert again.verify("alice", 2, digest(second))
    again.close()


def test_what_is_judged_has_no_name_yet_and_what_is_refused_never_gets_one(spool, tmp_path):
    raw = body()
    met = []

    def judge(part):
        met.append((part.read_bytes()[: len(raw)] == raw, spool.has("alice", 1, digest(raw)), set(spool._of)))
        raise RemoteProtocolError("too far", code="norm")

    sink = spool.open("alice", 1, digest(raw), len(raw), judge)
    sink.write(raw)
    with pytest.raises(RemoteProtocolError, match="too far"):
        sink.commit()
    assert met == [(True, False, set(spool._of))]  # threads judge, and leave what the loop goes through alone
    assert sink.offset == 0
    assert not any((tmp_path / "spool").iterdir())


def test_who_starts_anew_while_it_is_judged_is_not_held_up_and_judged_as_well(spool):
    raw = body()
    met = []

    def judge(part):
        met.append(spool.open("alice", 1, digest(raw), len(raw), met.append))

    sink = spool.open("alice", 1, digest(raw), len(raw), judge)
    sink.write(raw)
    with pytest.raises(RemoteProtocolError, match="anew"):
        sink.commit()
    [again] = met
    assert not spool.has("alice", 1, digest(raw))
    again.commit()
    again.commit()
    assert len(met) == 2
    assert spool.has("alice", 1, digest(raw))


def test_who_takes_over_does_not_wait_until_all_that_was_found_is_read_again(tmp_path, spool, monkeypatch):
    raw = body()
    spool.open("alice", 1, digest(raw), len(raw)).write(raw[:1_100_000])
    second, read, sinks = Spool(tmp_path / "spool", SCHEMA), [], []
    taking = threading.Thread(target=lambda: sinks.append(second.open("alice", 1, digest(raw), len(raw))))

    def preadv(handle, buffers, position, read_at=os.preadv):
        if not read:
            taking.start()
            taking.join(0.5)  # it waits for the lock, for a block at most
        read.append(position)
        return read_at(handle, buffers, position)

    sink = second.open("alice", 1, digest(raw), len(raw))
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", preadv)
        with pytest.raises(RemoteProtocolError, match="anew"):
            sink.write(raw[1_100_000:])
    taking.join()
    assert len(read) == 1
    [taken] = sinks
    assert taken.offset == 1_100_000
    taken.write(raw[1_100_000:])
    taken.commit()
    assert second.verify("alice", 1, digest(raw))
    second.close()


def test_a_count_that_finds_no_room_is_a_full_disk_and_the_upload_goes_on(spool, monkeypatch):
    raw = body()
    sink = spool.open("alice", 1, digest(raw), len(raw))

    def pwrite(handle, block, position, write=os.pwrite):
        if position >= len(raw):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, block, position)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(StorageFull):
            sink.write(raw[:1000])
    sink.write(raw[sink.offset :])
    sink.commit()
    assert spool.verify("alice", 1, digest(raw))
