"""A participant dies at any change of any of its files, and neither an update nor a bit of one is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_killed_anywhere_it_sends_the_same_updates_and_trains_none_again(tmp_path):
    command = [sys.executable, str(TESTS / "killed_participant.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 50
