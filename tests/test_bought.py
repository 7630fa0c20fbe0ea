"""What a participant remembers of what it was asked for, over restarts and full disks."""

import errno
import os

import pytest
from federation import did, make_plan

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.messages import Evaluate
from nevermined_fl.participant.bought import Bought

from transport_worlds import ALICE, BOB, digest, make_model  # isort: skip


@pytest.fixture
def bought(tmp_path):
    """What a process that was just started remembers."""
    return lambda: Bought(tmp_path / "asked.jsonl", make_plan((ALICE, BOB), make_model(1.0)), did("me"))


def evaluate(value):
    return Evaluate(3, 1, digest(make_model(float(value))), 60.0)


def test_three_models_and_no_fourth_however_often_it_is_started(bought):
    for value in (1, 2, 2, 3, 1):
        bought().judge(evaluate(value))
    with pytest.raises(RemoteProtocolError, match="other models"):
        bought().judge(evaluate(4))


def test_half_a_line_of_a_full_disk_swallows_no_other(bought, tmp_path, monkeypatch):
    def full(handle, raw, write=os.write):
        if len(raw) < 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, raw[:50])

    bought().judge(evaluate(1))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "write", full)
        bought().judge(evaluate(2))
    bought().judge(evaluate(3))
    bought().judge(evaluate(2))
    with pytest.raises(RemoteProtocolError, match="other models"):
        bought().judge(evaluate(4))
    assert len((tmp_path / "asked.jsonl").read_text().split()) > 3
