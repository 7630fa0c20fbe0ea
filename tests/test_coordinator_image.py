"""The coordinator as a process: its metrics are for whoever holds the token in its folder, and SIGTERM is no end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from federation import make_plan
from transport_worlds import ALICE, BOB, SESSION, make_certificate, make_model

from nevermined_fl.transports.http.client import fingerprint_of, pinned_context


@pytest.fixture
def job(tmp_path):
    raw = make_model(1.0)
    plan = make_plan((ALICE, BOB), raw)
    (tmp_path / "initial.safetensors").write_bytes(raw)
    make_certificate(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    body = {"session": SESSION, "parameters": plan.to_parameters(), "members": list(plan.members)}
    (tmp_path / "job.json").write_text(json.dumps(body | {"host": "127.0.0.1", "port": port}))
    return tmp_path, port


@contextmanager
def running(folder, **environment):
    """The process, once it listens; at the end it is asked to stop."""
    command = [sys.executable, "-m", "coordinator_image", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        lines = [next(line for line in process.stderr if "listening on port" in line)]
        yield lines
    finally:
        process.send_signal(signal.SIGTERM)
        lines += process.stderr.readlines()
        process.stderr.close()
        assert process.wait(20) == 3


def get(folder, port, path, bearer=None):
    certificate = (folder / "tls.crt").read_text()
    context = pinned_context(certificate, fingerprint_of(certificate))
    assert context.verify_mode is ssl.CERT_REQUIRED
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_are_for_whoever_holds_the_job_s_token(job):
    folder, port = job
    with running(folder):
        token = (folder / "metrics.token").read_text().strip()
        assert (folder / "metrics.token").stat().st_mode & 0o777 == 0o600
        for wrong in (None, "", "x", token[:-1], f"{token}x"):
            assert get(folder, port, "/v1/metrics", wrong)[0] == 401
        status, text = get(folder, port, "/v1/metrics", token)
        assert status == 200
        assert 'nevermined_fl_phase{phase="selection"} 1.0' in text
        assert "nevermined_fl_open_connections 1.0" in text
        assert get(folder, port, "/v1/health")[1] == json.dumps({"session": SESSION, "phase": "selection"})
    with running(folder):
        assert (folder / "metrics.token").read_text().strip() == token


def test_its_log_is_json_where_that_is_wanted_and_names_the_session(job):
    folder, _ = job
    with running(folder, NEVERMINED_FL_LOG="json") as lines:
        until = time.monotonic() + 20
        while not (folder / "status.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads((folder / "status.json").read_text())["phase"] == "selection"
    records = [json.loads(line) for line in lines]
    assert records[0]["session"] == SESSION
    assert records[-1]["message"] == "stopped; the journal knows where to go on"
