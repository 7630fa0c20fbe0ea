"""``python -m benchmarks --quick`` runs real processes and prints what it promises; how fast they are is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISED = {"params", "clients", "tls", "round_s", "server_rss_mb", "server_cpu_s", "wire_ratio"}


@pytest.fixture(scope="module")
def lines():
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_the_first_line_is_the_machine(lines):
    assert lines[0]["bench"] == "machine"
    assert {"processor", "cores", "memory_gb", "python", "numpy"} <= lines[0].keys()


def test_a_session_is_measured_plain_and_over_tls(lines):
    rounds = [line for line in lines if line["bench"] == "round"]
    assert [line["tls"] for line in rounds] == [False, True]
    for line in rounds:
        assert line.keys() >= PROMISED
        assert 0 < line["round_s"] <= line["slowest_round_s"]
        assert line["server_cpu_s"] > 0
        assert 20 < line["server_rss_mb"] < 1000


def test_every_byte_of_a_model_crosses_the_network_once_each_way(lines):
    [line] = [line for line in lines if line.get("case") == "quick"]
    if line["private_network"]:
        # Once only would be 0.5, a relay in between 2.
        assert 0.9 < line["wire_ratio"] < 1.3
