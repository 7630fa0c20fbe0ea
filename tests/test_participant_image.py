"""The participant's image refuses what its provider does not want."""

import os
import subprocess
import sys

import numpy as np
import pytest
from federation import did, make_plan

from nevermined_fl.codecs import safetensors
from nevermined_fl.files import write_json
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.tokens import JobKey


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
