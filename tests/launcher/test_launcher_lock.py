"""One launcher per data folder: a second one would take the first one's jobs for its own, and end them."""

from __future__ import annotations

import os
import subprocess
import sys

from nevermined_fl.files import lock_file


def start(home):
    command = [sys.executable, "-m", "nevermined_fl.launcher", "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_second_is_refused_as_long_as_the_first_lives(tmp_path):
    (tmp_path / "provider.toml").write_text('name = "A"\nnetwork = "n"\n')
    held = lock_file(tmp_path / "launcher.lock", "launcher")
    refused = start(tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("launcher.lock is held: another launcher is at work in this folder\n")
    os.close(held)
    free = start(tmp_path)
    assert free.returncode == 2
    assert "secret" in free.stderr  # it got further
