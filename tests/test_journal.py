"""The journal: what is in it survives the death of its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nevermined_fl.errors import SettingsError
from nevermined_fl.journal import Journal

WRITER = """
import sys
from pathlib import Path
from nevermined_fl.journal import Journal
journal = Journal(Path(sys.argv[1]))
for n in range(7):
    journal.append(100.0 + n, {"type": "ticked", "k": n}, participant="p", signed=f"jws{n}" if n % 3 == 0 else "")
print("ready", flush=True)
sys.stdin.read()
"""


def test_events_come_back_in_order_after_the_writer_was_killed(tmp_path):
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        os.kill(writer.pid, signal.SIGKILL)
    journal = Journal(path)
    assert list(journal.replay()) == [(n + 1, 100.0 + n, {"type": "ticked", "k": n}) for n in range(7)]
    assert list(journal.proofs()) == [(1, "p", "jws0"), (4, "p", "jws3"), (7, "p", "jws6")]
    assert journal.append(200.0, {"type": "ticked"}) == 8
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_file_is_no_journal(tmp_path):
    (tmp_path / "journal").write_bytes(b"something else " * 100)
    with pytest.raises(SettingsError, match="is not a journal"):
        Journal(tmp_path / "journal")
