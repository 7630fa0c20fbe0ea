"""The examples run as they stand, on a network as a newcomer brings it up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nevermined_fl.codecs import safetensors
from nevermined_fl.devnet import network
from nevermined_fl.devnet.home import DEFAULT_HOME

pytestmark = pytest.mark.xdist_group("devnet-commands")
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_quickstart_draws_a_line_through_everybody_s_points(tmp_path):
    with network.start(tmp_path / DEFAULT_HOME, providers=3) as running:
        running.wait_ready()
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "quickstart.py")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
    assert done.returncode == 0, done.stderr
    model = safetensors.load((tmp_path / done.stdout.strip()).read_bytes())
    # Each owner's points, 3x + 7 and every second one 1 above, fit a line of their own; the model is their mean.
    lines = [np.polyfit(x, 3 * x + 7 + x % 2, 1) for x in np.arange(60).reshape(3, 20)]
    assert np.allclose(model["line"], np.mean(lines, axis=0), rtol=1e-5)


def test_the_quickstart_has_less_than_forty_lines():
    assert len((EXAMPLES / "quickstart.py").read_text().splitlines()) < 40
