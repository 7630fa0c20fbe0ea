"""Nothing that we import lets nested JSON overflow the stack."""

import subprocess
import sys

import pytest

from nevermined_fl import recursion

PROBE = """
import json, sys
import {module}
{then}
assert sys.getrecursionlimit() <= {limit}, sys.getrecursionlimit()
try:
    json.loads("[" * 200_000)
except RecursionError:
    print("refused")
"""
CASES = {
    "nevermined_fl.chain.nevermined": "",
    "nevermined_fl.keys": "nevermined_fl.keys.KeyFile.create(sys.argv[1], 'secret', fast=True)",
}


@pytest.mark.parametrize("module", CASES)
def test_deep_json_is_an_error_and_not_a_crash_after_importing(module, tmp_path):
    probe = PROBE.format(module=module, then=CASES[module], limit=recursion.SAFE)
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path / "key.json")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "refused"), done.stderr
