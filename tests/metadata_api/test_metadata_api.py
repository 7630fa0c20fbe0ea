"""Story: a provider logs in, publishes, is found, corrects and removes, on the paths of the Nevermined metadata API.

Everything here runs over real sockets against the server's real process.
"""

import base64
import contextlib
import copy
import json
import re
import runpy
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest, MetadataError, NotFound
from nevermined_fl.metadata import HttpMetadata
from nevermined_fl.metadata_api import Store
from nevermined_fl.tokens import make_assertion

ddos = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "assets" / "ddos.py")))
ASSETS = "/api/v1/metadata/assets"
LOGIN = "/api/v1/auth/login"
GRANT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@contextlib.contextmanager
def serving(home, port=0):
    command = [sys.executable, "-m", "nevermined_fl.metadata_api", "--home", str(home), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        url = process.stdout.readline().strip()
        assert url, "it did not start"
        try:
            yield SimpleNamespace(url=url, process=process, home=home)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("metadata")) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url) as found:
        yield found


def post(client, ddo, **values):
    return client.post(f"{ASSETS}/ddo", content=json.dumps(ddo), **values)


def login(client, account, assertion=None):
    assertion = assertion or make_assertion(account, aud=LOGIN)
    return client.post(LOGIN, data={"client_assertion_type": GRANT, "client_assertion": assertion})


def bearer(client, account):
    return {"Authorization": "Bearer " + login(client, account).json()["access_token"]}


def fresh(number, name="patients", **about):
    values = {"gateway_url": ddos.GATEWAY, "terms": ddos.TERMS, "files": [], "schema": ddos.SCHEMA}
    return assets.build_dataset(ddos.HOSPITAL, assets.About(name, ddos.NOW + number, **about), **values)


def test_from_login_to_removal(client):
    ddo = fresh(1, "elephants")
    did = ddo["id"]
    headers = bearer(client, ddos.PROVIDER)
    assert client.get("/").json()["software"] == "nevermined-fl metadata API"

    published = post(client, ddo | {"userId": "u-1"}, headers=headers)
    assert (published.status_code, published.json()) == (201, ddo)
    assert post(client, ddo).status_code == 200
    assert did in client.get(ASSETS).json()
    assert client.get(f"{ASSETS}/ddo/{did}").json() == ddo
    assert client.get(f"{ASSETS}/metadata/{did}").json()["main"]["name"] == "elephants"
    status = client.get(f"{ASSETS}/ddo/{did}/status").json()
    assert status["status"] == "published"
    assert status["checksum"] == assets.registry_checksum(ddo)

    found = client.get(f"{ASSETS}/ddo/query", params={"text": "elephants", "offset": 10, "page": 1})
    assert (found.status_code, found.json()["results"]) == (200, [ddo])
    found = client.post(f"{ASSETS}/ddo/query", json={"query": {"text": ["elephants"]}, "sort": {"created": -1}})
    assert (found.status_code, found.json()["results"]) == (201, [ddo])

    curated = copy.deepcopy(ddo)
    curated["service"][0]["attributes"]["curation"] = {"rating": 0.5, "numVotes": 2, "isListed": True}
    assert client.put(f"{ASSETS}/ddo/{did}", content=json.dumps(curated), headers=headers).status_code == 200
    assert client.get(f"{ASSETS}/ddo/{did}").json() == curated

    assert client.delete(f"{ASSETS}/ddo/{did}", headers=headers).status_code == 200
    assert client.get(f"{ASSETS}/ddo/{did}").status_code == 404
    assert client.get(f"{ASSETS}/ddo/query", params={"text": "elephants"}).json()["results"] == []


def test_a_stranger_cannot_publish_curation(client):
    ddo = fresh(2)
    curated = copy.deepcopy(ddo)
    curated["service"][0]["attributes"]["curation"] = {"rating": 1.0}
    assert post(client, curated).status_code == 201
    assert client.get(f"{ASSETS}/ddo/{ddo['id']}").json() == ddo


# --- who may write -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_only_the_creator_changes_or_removes(client, method):
    ddo = fresh(3)
    post(client, ddo)
    path = f"{ASSETS}/ddo/{ddo['id']}"
    for headers, status, check in [
        ({}, 401, "token_missing"),
        ({"Authorization": "Basic YTpi"}, 401, "token_missing"),
        ({"Authorization": "Bearer a.b.c"}, 401, "token_signature"),
        (bearer(client, ddos.BUYER), 403, "creator"),
    ]:
        answer = client.request(method, path, content=json.dumps(ddo), headers=headers)
        assert (answer.status_code, answer.json()["check"]) == (status, check)
    assert client.get(path).json() == ddo


def test_another_ddo_does_not_take_the_place_of_one(client):
    ddo, other = fresh(4), fresh(5)
    post(client, ddo)
    path = f"{ASSETS}/ddo/{ddo['id']}"
    answer = client.put(path, content=json.dumps(other), headers=bearer(client, ddos.PROVIDER))
    assert (answer.status_code, answer.json()["check"]) == (400, "ddo_did")
    assert client.get(path).json() == ddo


def test_an_assertion_opens_the_door_once_and_only_this_door(client):
    assertion = make_assertion(ddos.PROVIDER, aud=LOGIN)
    assert login(client, None, assertion).status_code == 201
    again = login(client, None, assertion)
    assert (again.status_code, again.json()["check"]) == (401, "token_replayed")
    foreign = login(client, None, make_assertion(ddos.PROVIDER, aud="/api/v1/gateway/services/execute"))
    assert (foreign.status_code, foreign.json()["check"]) == (401, "token_audience")
    late = login(client, None, make_assertion(ddos.PROVIDER, aud=LOGIN, now=ddos.NOW - 10**6))
    assert (late.status_code, late.json()["check"]) == (401, "token_expired")
    assert login(client, None, "junk").status_code == 401
    assert client.post(LOGIN, data={}).json()["check"] == "login"


def test_a_login_as_the_nevermined_sdk_makes_it_is_taken_and_its_token_is_plain_base64(client):
    def part(value):
        return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=")

    claims = json.loads(part_of(make_assertion(ddos.PROVIDER, aud=LOGIN), 1))
    claims = {key: claims[key] for key in ("iat", "exp")} | {"iss": ddos.PROVIDER.address}
    text = part({"alg": "ES256K", "typ": "JWT"}) + b"." + part(claims)
    assertion = text + b"." + part(ddos.PROVIDER.sign_message(text))
    answer = login(client, None, assertion.decode())
    assert answer.status_code == 201
    token = answer.json()["access_token"]
    assert re.fullmatch(r"[A-Za-z0-9]+\.[A-Za-z0-9]+", token.rpartition(".")[0])
    assert json.loads(part_of(token, 1))["sub"] == ddos.PROVIDER.address


def part_of(token, n):
    part = token.split(".")[n]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_service_agreements_are_kept_for_the_sdk(client):
    path = f"{ASSETS}/service"
    body = {"agreementId": "0xa1", "price": "12"}
    assert client.post(path, json=body).status_code == 401
    headers = bearer(client, ddos.PROVIDER)
    assert client.post(path, json=body, headers=headers).status_code == 201
    assert client.get(f"{path}/0xa1").json() == body
    assert client.get(f"{path}/0xa2").status_code == 404
    answer = client.post(path, json=body, headers=bearer(client, ddos.BUYER))
    assert (answer.status_code, answer.json()["check"]) == (403, "owner")
    assert client.post(path, json={"agreementId": 5}, headers=headers).status_code == 400


# --- hostile requests --------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client):
    answer = client.post(f"{ASSETS}/ddo", content=b" " * (assets.MAX_BYTES + 1))
    assert (answer.status_code, answer.json()["check"]) == (400, "ddo_size")
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(f"POST {ASSETS}/ddo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert b" 413 " in raw.recv(100)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"id": 1}',
        b"[" * 5000,
        b'{"a":' * 5000,
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b"\xff",
        b"\0" * 50,
    ],
)
def test_a_body_that_is_no_ddo_is_refused_with_the_check(client, body):
    answer = client.post(f"{ASSETS}/ddo", content=body)
    assert answer.status_code == 400
    assert answer.json()["check"].startswith("ddo_")


@pytest.mark.parametrize(
    "body",
    [
        {"query": 5},
        {"query": {"$where": "1"}},
        {"query": {"text": 5}},
        {"query": {"text": ["a"] * 101}},
        {"query": {"type": ["spaceship"]}},
        {"query": {"text": "a"}, "page": 0},
        {"query": {"text": "a"}, "page": True},
        {"query": {"text": "a"}, "offset": "x"},
        {"query": {"text": "a"}, "sort": {"body; DROP TABLE ddos": 1}},
        {"query": {"text": "a"}, "sort": {"created": 2}},
        {"query": {"text": "a"}, "sort": [1]},
        {"query": {"text": "a"}, "sort": "{"},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(client, body):
    answer = client.post(f"{ASSETS}/ddo/query", json=body)
    assert (answer.status_code, answer.json()["check"]) == (400, "query")


def test_queries_filter_and_sort(client):
    cheap, dear = (
        assets.build_dataset(
            ddos.HOSPITAL,
            assets.About(f"okapi {n}", ddos.NOW + 100 + n),
            gateway_url=ddos.GATEWAY,
            terms=assets.Terms(
                (price,), (ddos.PROVIDER.address,), ddos.TOKEN, ddos.TEMPLATE, ddos.ESCROW, timeout_blocks=10
            ),
            files=[],
            schema=ddos.SCHEMA,
        )
        for n, price in enumerate((9, 10))
    )
    post(client, dear)
    post(client, cheap)

    def ask(query, **values):
        body = {"query": {"text": "okapi"} | query} | values
        return [ddo["id"] for ddo in client.post(f"{ASSETS}/ddo/query", json=body).json()["results"]]

    assert ask({}, sort={"price": 1}) == [cheap["id"], dear["id"]]
    assert ask({}, sort={"price": -1}) == [dear["id"], cheap["id"]]
    assert ask({}, sort={"name": 1}, offset=1, page=2) == [dear["id"]]
    assert ask({"type": "dataset", "creator": ddos.PROVIDER.address.lower(), "did": [dear["id"]]}) == [dear["id"]]
    assert ask({"type": ["model"]}) == []
    assert ask({"creator": ddos.BUYER.address}) == []
    answer = client.get(f"{ASSETS}/ddo/query", params={"text": "okapi", "sort": '{"price": -1}', "offset": 1})
    assert (answer.json()["total_results"], answer.json()["total_pages"]) == (2, 2)
    assert answer.json()["results"] == [dear]


def test_unknown_paths_and_methods_are_json_errors(client):
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("DELETE", f"{ASSETS}/ddo", 405),
        ("GET", f"{ASSETS}/ddo/x", 404),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) >= {"error", "check", "message"}


# --- threads, crashes, signals -----------------------------------------------------------------------------------


def test_publishers_at_the_same_time_do_not_disturb_each_other(server):
    several = [fresh(200 + n, f"tapir {n}") for n in range(12)]
    with HttpMetadata(server.url) as metadata, ThreadPoolExecutor(6) as pool:
        list(pool.map(metadata.publish, several + several))
        found = list(pool.map(metadata.resolve, [ddo["id"] for ddo in several]))
        assert found == several
        assert len(metadata.search("tapir")) == 12


def test_what_was_answered_survives_a_kill_and_a_restart_takes_the_same_logins(tmp_path):
    several = [fresh(300 + n, f"tapir {n}") for n in range(8)]
    kept = []

    def publish_until_it_dies(url):
        with httpx.Client(base_url=url) as client, contextlib.suppress(httpx.HTTPError):
            for ddo in several * 3:
                post(client, ddo).raise_for_status()
                kept.append(ddo)

    with serving(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        headers = bearer(client, ddos.PROVIDER)
        writer = threading.Thread(target=publish_until_it_dies, args=(server.url,))
        writer.start()
        while not kept:
            client.get("/")
        server.process.kill()
        writer.join()
    with serving(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        for ddo in kept:
            assert client.get(f"{ASSETS}/ddo/{ddo['id']}").json() == ddo
        assert len(client.get(f"{ASSETS}/ddo/query?text=tapir").json()["results"]) == len(client.get(ASSETS).json())
        assert client.delete(f"{ASSETS}/ddo/{kept[0]['id']}", headers=headers).status_code == 200
        server.process.terminate()
        assert server.process.wait(10) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "metadata.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (tmp_path / "login.secret").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_it_cleanly_and_frees_the_port(tmp_path):
    with serving(tmp_path) as server:
        port = httpx.URL(server.url).port
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_client_waits_for_a_server_that_is_away_and_gives_up_when_patience_ends(tmp_path):
    ddo = fresh(400)
    store = Store(tmp_path / "metadata.sqlite")
    store.add(ddo)
    store.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with HttpMetadata(url, patience=0.3) as hasty, pytest.raises(MetadataError, match=r"for 0.3 s"):
        hasty.resolve(ddo["id"])
    with HttpMetadata(url, patience=20) as patient, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(patient.resolve, ddo["id"])
        with serving(tmp_path, port):
            assert asked.result(30) == ddo


# --- a lying server ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lying(answer, status=200, headers=()):
    class Liar(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for block in answer:
                    self.wfile.write(block)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with HttpMetadata(f"http://127.0.0.1:{found.server_port}", patience=0.2) as client:
            yield client
        found.shutdown()
        thread.join()


DID = ddos.ALL["model"]["id"]


@pytest.mark.parametrize(
    ("answer", "error", "check"),
    [
        ([json.dumps(ddos.ALL["dataset"]).encode()], InvalidRequest, "ddo_did"),
        ([json.dumps(ddos.ALL["model"]).replace("0.93", "0.99").encode()], InvalidRequest, "ddo_checksum"),
        ([b"<html>"], InvalidRequest, "ddo_json"),
        ([b" " * 65_536] * 1000, MetadataError, None),
    ],
)
def test_an_answer_that_is_not_the_ddo_is_not_taken_for_it(answer, error, check):
    with lying(answer) as client, pytest.raises(error) as refused:
        client.resolve(DID)
    assert getattr(refused.value, "check", None) == check


def test_edited_results_are_left_out_of_a_search():
    edited = json.loads(json.dumps(ddos.ALL["model"]).replace("0.93", "0.99"))
    raw = json.dumps({"results": [edited, 5, None, ddos.ALL["model"]]}).encode()
    with lying([raw]) as client:
        assert client.search("model") == [ddos.ALL["model"]]
    with lying([b'{"results": 5}']) as client:
        assert client.search("model") == []
    with lying([b"[]"]) as client, pytest.raises(MetadataError, match="something else"):
        client.search("model")


def test_refusals_of_any_shape_become_our_own_errors():
    for status, body, error in [
        (404, b"gone", NotFound),
        (400, b'{"message": "no", "check": ["x"]}', InvalidRequest),
        (403, b'{"message": 5}', MetadataError),
        (302, b"", MetadataError),
        (503, b"later", MetadataError),
    ]:
        with lying([body], status, [("Location", "http://127.0.0.1:1/")]) as client, pytest.raises(error):
            client.resolve(DID)


def test_a_did_never_becomes_another_path():
    with HttpMetadata("http://127.0.0.1:1", patience=0) as client, pytest.raises(InvalidRequest, match="did:nv"):
        client.resolve("did:nv:../../login")
