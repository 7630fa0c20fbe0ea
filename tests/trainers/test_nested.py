"""The buyer's process inside the participant's own bubblewrap, as a launcher starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nevermined_fl.backends import bubblewrap
from nevermined_fl.ports import JobSpec

pytestmark = pytest.mark.bubblewrap

ALGORITHM = """
import glob, os
import numpy as np
from nevermined_fl.trainers import Trainer

class Curious(Trainer):
    def initialize(self, seed):
        seen = set(os.listdir("/job"))
        for root in glob.glob("/proc/[0-9]*/root"):
            try:
                seen |= set(os.listdir(root + "/job"))
            except OSError:
                pass
        print("SEEN", sorted(seen), flush=True)
        return {"w": np.zeros(2, np.float32)}
"""
PARTICIPANT = """
import asyncio, os
from pathlib import Path
from nevermined_fl.trainers import sandbox
from nevermined_fl.trainers.process import Place, TrainerChild

async def main():
    print("OUTER", sandbox.isolation(), os.path.exists("/job/job.key"), flush=True)
    job = Path("/job")
    child = TrainerChild(Place(job / "transformations" / "algorithm.py", job / "inputs", job / "scratch"))
    await child.start({}, 60)
    await child.ask({"op": "initialize", "seed": 1, "output": "model"}, 60)
    await child.close()

asyncio.run(main())
"""


def test_the_algorithm_sees_neither_the_jobs_key_nor_the_participant():
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in ("tmp", "inputs", "transformations", "scratch"):
            (work / name).mkdir()
        (work / "job.key").write_text(json.dumps({"secret": 1}))
        (work / "transformations" / "algorithm.py").write_text(ALGORITHM)
        command = bubblewrap.command("bwrap", JobSpec(id="job", entrypoint="participant_image", folder=work))
        done = subprocess.run([*command, sys.executable, "-c", PARTICIPANT], capture_output=True, text=True, check=True)
    words = done.stdout + done.stderr
    assert "OUTER bubblewrap True" in words
    assert "SEEN ['inputs', 'scratch', 'transformations']" in words
