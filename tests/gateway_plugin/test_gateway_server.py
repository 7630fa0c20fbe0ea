"""The gateway over real sockets: what waitress is told to refuse before it takes a body in, and how the server ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from gateway_cases import algorithm
from gateway_world import MAX_UPLOAD, PREFIX, Door
from permission_world import BUYER
from waitress import wasyncore

from gateway_plugin.bodies import MAX_BODY
from gateway_plugin.server import make_server


@pytest.fixture
def served(tmp_path):
    door = Door(tmp_path)
    server = make_server(door.app, door.gateway, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield door, int(server.effective_port)
    finally:
        server.close()
        thread.join(10)
        assert not thread.is_alive()
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)


def say(port, *lines, body=b""):
    """Send a request by hand; the answer's head and JSON."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "Host: gateway", "", ""]).encode() + body)
        raw = b""
        while block := connection.recv(65536):
            raw += block
    head, _, text = raw.partition(b"\r\n\r\n")
    return head.decode(), json.loads(text)


def test_an_upload_and_a_download_pass_through_the_server(served):
    door, port = served
    content = os.urandom(MAX_UPLOAD)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}{PREFIX}", trust_env=False) as client:
        assert client.post("/fl/uploads", headers=door.bearer("fl/upload"), content=content).status_code == 201
        chunked = client.post("/fl/uploads", headers=door.bearer("fl/upload"), content=iter([b"abc", b"def"]))
        assert chunked.json()["size"] == 6
        headers = door.bearer("download", did=algorithm(door, BUYER, content))
        assert client.get("/download/0", headers=headers).content == content


def test_an_upload_without_a_token_is_refused_before_its_body_is_sent(served):
    _, port = served
    head, body = say(port, f"POST {PREFIX}/fl/uploads HTTP/1.1", f"Content-Length: {MAX_UPLOAD}")
    assert head.startswith("HTTP/1.1 401")
    assert body["check"] == "token_present"


def test_no_body_is_asked_for_when_it_will_be_refused(served):
    _, port = served
    head, _ = say(port, f"POST {PREFIX}/fl/uploads HTTP/1.1", "Content-Length: 9000", "Expect: 100-continue")
    assert head.startswith("HTTP/1.1 401")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(served):
    door, port = served
    token = door.bearer("fl/upload")["Authorization"]
    line = f"POST {PREFIX}/fl/uploads HTTP/1.1"
    head, body = say(port, line, f"Authorization: {token}", f"Content-Length: {MAX_UPLOAD + 1}")
    assert head.startswith("HTTP/1.1 413")
    assert (body["check"], body["message"]) == ("body_size", f"a body here has at most {MAX_UPLOAD} bytes")


def test_a_chunked_body_ends_where_it_becomes_too_large(served):
    _, port = served
    # One byte beyond the limit, and none after it: what a server leaves unread resets the connection.
    body = b"20000\r\n".ljust(MAX_BODY + 1, b"a")
    line = f"POST {PREFIX}/oauth/token HTTP/1.1"
    head, answer = say(port, line, "Transfer-Encoding: chunked", body=body)
    assert head.startswith("HTTP/1.1 413")
    assert answer["check"] == "body_size"


def test_paths_that_only_look_like_the_upload_s_get_the_small_limit(served):
    door, port = served
    token = door.bearer("fl/upload")["Authorization"]
    line = f"POST {PREFIX}/fl/uploads/ HTTP/1.1"
    head, _ = say(port, line, f"Authorization: {token}", f"Content-Length: {MAX_UPLOAD}")
    assert head.startswith("HTTP/1.1 413")


def test_sigterm_ends_the_process_although_somebody_waits_for_a_record(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        launcher = f"http://127.0.0.1:{silent.getsockname()[1]}"
        script, tests = Path(__file__).with_name("serve_memory.py"), Path(__file__).parents[1]
        command = [sys.executable, "-W", "ignore", script, tmp_path, str(port), launcher, tests]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            waiting = when_open(port, process)
            waiting.sendall(f"GET {PREFIX}/fl/sessions/did:nv:{'5' * 64}/record?wait=30 HTTP/1.0\r\n\r\n".encode())
            asked, _ = silent.accept()
            process.send_signal(signal.SIGTERM)
            with asked, waiting:
                assert process.wait(10) == 0, process.stderr.read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def when_open(port, process):
    """A connection to the port as soon as something listens there."""
    while process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise AssertionError(process.stderr.read())


def test_wrong_settings_are_said_in_one_line(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "gateway_plugin", "--home", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "provider.toml" in ended.stderr
    assert "Traceback" not in ended.stderr
