"""The participant's image refuses what its provider does not want, and says goodbye when it is stopped."""

import asyncio
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from federation import did, make_plan

from nevermined_fl.codecs import safetensors
from nevermined_fl.files import write_json
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.tokens import JobKey

from transport_worlds import ALICE, BOB, SESSION, HttpWorld  # isort: skip

ENDLESS = """
import time
from nevermined_fl import Trainer

class Endless(Trainer):
    def fit(self, model, seed):
        print("training", flush=True)
        time.sleep(600)
"""


def run(tmp_path, **job):
    """Run the image where there is no bubblewrap; what it wrote and its exit code."""
    plan = make_plan([did("a")], safetensors.dump({"w": np.zeros(2, np.float32)}))
    certificate = ensure_certificate(tmp_path, "127.0.0.1")
    who = {"session": did("s"), "participant": did("a"), "members": [did("a")], "entrypoint": "algorithm.py"}
    write_json(tmp_path / "job.json", who | {"parameters": plan.to_parameters(), "patience": 0.1} | job)
    endpoint = {"url": "https://127.0.0.1:9", "fingerprint": certificate.fingerprint, "certificate": certificate.pem}
    write_json(tmp_path / "endpoint.json", endpoint)
    JobKey.create().save(tmp_path / "job.key")
    (tmp_path / "join.jwt").write_text("token")
    (tmp_path / "transformations").mkdir()
    (tmp_path / "transformations" / "algorithm.py").touch()
    command = [sys.executable, "-m", "participant_image", str(tmp_path)]
    environment = os.environ | {"PATH": str(tmp_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("job", "code"), [({"isolation": "required"}, 1), ({}, 3)])
def test_an_algorithm_is_not_run_without_isolation_where_that_is_required(tmp_path, job, code):
    done = run(tmp_path, **job)
    assert done.returncode == code, done.stderr
    assert ("cannot be isolated here" in done.stderr) == bool(job)


async def test_whoever_is_stopped_while_it_trains_tells_the_coordinator_that_no_answer_will_come(tmp_path):
    world = await HttpWorld(tmp_path).start()
    job = {"session": SESSION, "participant": ALICE, "members": list(world.plan.members), "entrypoint": "algorithm.py"}
    write_json(tmp_path / "job.json", job | {"parameters": world.plan.to_parameters()})
    endpoint = {"url": f"https://127.0.0.1:{world.port}", "fingerprint": world.fingerprint}
    write_json(tmp_path / "endpoint.json", endpoint | {"certificate": world.certificate})
    world.keys[ALICE].save(tmp_path / "job.key")
    (tmp_path / "join.jwt").write_text(ALICE)
    for name in ("inputs", "transformations"):
        (tmp_path / name).mkdir()
    (tmp_path / "transformations" / "algorithm.py").write_text(ENDLESS)
    await world.joined(BOB)
    command = [sys.executable, "-m", "participant_image", str(tmp_path)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stderr=pipe)
    heard = ""
    while not heard.endswith("training\n"):
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, heard
        heard += line.decode()

    process.send_signal(signal.SIGTERM)

    assert await asyncio.wait_for(process.wait(), 30) == 3, heard
    first, last = heard.splitlines()[0], (await process.stderr.read()).decode().splitlines()[-1]
    assert first.endswith(f" session={SESSION} participant={ALICE}")
    assert last.endswith(f"stopped session={SESSION} round=1 participant={ALICE}")
    assert [line["participant"] for line in world.told if line["event"] == "left"] == [ALICE]
    await world.close()
