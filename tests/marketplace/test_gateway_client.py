"""The buyer's end of a gateway, against the real one."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from buyer_world import BUYER, serving
from permission_world import STRANGER

from nevermined_fl.errors import InvalidRequest, NotFound, PermissionDenied, TransportError
from nevermined_fl.files import sha256_bytes
from nevermined_fl.marketplace.gateway_client import GatewayClient


@pytest.fixture
def door(tmp_path):
    with serving(tmp_path) as (door, url):
        yield door, url


def client(url, account=BUYER, patience=0.0):
    return GatewayClient(url, account, patience=patience)


def test_an_upload_is_answered_with_its_digest(door):
    content = b"def f(): pass\n"
    assert "sha256:" + client(door[1]).upload(content) == sha256_bytes(content)


def test_a_token_is_used_again_and_every_assertion_once(door):
    gateway = client(door[1])
    gateway.upload(b"one")
    gateway.upload(b"two")
    assert len(gateway._tokens) == 1


def test_a_refusal_keeps_check_message_and_kind(door):
    with pytest.raises(PermissionDenied) as refused:
        client(door[1], STRANGER).upload(b"content")
    assert refused.value.check == "buyer_allowed"
    with pytest.raises(InvalidRequest):
        client(door[1]).upload(b"x" * 2000)
    with pytest.raises(PermissionDenied) as refused:
        client(door[1]).execute("0x" + "77" * 32, workflow=door[0].market.workflow)
    assert refused.value.check == "agreement_exists"


def test_a_download_stops_at_the_size_that_the_ddo_states(door, tmp_path):
    world = door[0].market
    with pytest.raises((NotFound, PermissionDenied)):
        client(door[1]).download(world.dataset, 0, tmp_path / "file", max_bytes=10)


def test_a_gateway_that_is_not_there_is_a_transport_error(tmp_path):
    with pytest.raises(TransportError, match="does not answer"):
        client("http://127.0.0.1:9").upload(b"content")


class Flaky(BaseHTTPRequestHandler):
    """Fails the first two times, then says who it is."""

    calls = 0

    def do_GET(self):
        Flaky.calls += 1
        ready = Flaky.calls > 2
        body = b'{"software": "here"}' if ready else b""
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_gateway_that_fails_for_a_moment_is_asked_again():
    server = HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert client(url, patience=10.0).info() == {"software": "here"}
        assert Flaky.calls == 3
    finally:
        server.shutdown()
        server.server_close()
