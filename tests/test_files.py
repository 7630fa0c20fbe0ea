"""Files that are whole or not there."""

from __future__ import annotations

import hashlib
import json

import pytest
from blake3 import blake3

from nevermined_fl.digests import digest_file
from nevermined_fl.files import (
    append_line,
    atomic_file,
    digest_of,
    hash_file,
    sha256_file,
    size_of,
    write_atomic,
    write_json,
)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model"
    write_atomic(path, b"old")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.writelines([b"ne", "w"])
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_files_are_private(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})
    append_line(tmp_path / "lines", "one")
    append_line(tmp_path / "lines", "two")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}
    assert (tmp_path / "lines").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("kind", [hashlib.sha256, blake3])
def test_the_digest_of_a_file_that_is_longer_than_a_block(tmp_path, kind):
    raw = bytes(range(251)) * 9000
    (tmp_path / "big").write_bytes(raw)
    digest = digest_of(kind(raw))
    assert hash_file(tmp_path / "big", kind()) == digest_file(tmp_path / "big", digest) == digest
    assert sha256_file(tmp_path / "big") == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert (size_of(tmp_path / "big"), size_of(tmp_path / "none")) == (len(raw), 0)
