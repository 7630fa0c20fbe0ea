"""A gateway in front of its real launcher: jobs, their owners, reviews and session records."""

import http.server
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_and_launcher import SECRET, open_house
from gateway_world import Door
from permission_world import BUYER

from gateway_plugin.launcher import Launcher
from nevermined_fl.tokens import verify_record


@pytest.fixture
def house(tmp_path):
    with open_house(tmp_path) as house:
        yield house


@pytest.fixture
def running(house):
    """Agreement and execution of a job that has begun."""
    house.approve()
    claims = house.door.order()
    answer = house.execute(claims)
    assert answer.status_code == 200, answer.json
    return claims["sub"], answer.json["workflowId"]


def test_what_was_bought_is_executed_watched_and_stopped(house, running):
    agreement, execution = running
    status = house.watch("GET", "status", agreement, execution).json
    assert (status["id"], status["agreement"], status["consumer"]) == (execution, agreement, BUYER.address)
    assert status["session"] == house.market.session
    assert house.watch("GET", "logs", agreement, execution).json == []
    assert house.watch("DELETE", "stop", agreement, execution).json == {"message": "Successfully delete"}


def test_the_launcher_s_refusals_come_through_with_check_and_hint(house):
    answer = house.execute(house.door.order())
    assert (answer.status_code, answer.json["check"]) == (403, "algorithm_approved")
    assert answer.json["error"] == "access_denied"
    assert "c1" * 32 in answer.json["message"]
    assert answer.json["hint"]


def test_an_agreement_has_one_live_execution(house, running):
    answer = house.execute({"sub": running[0], "did": house.market.workflow})
    assert (answer.status_code, answer.json["check"]) == (409, "one_live_execution")


def test_an_execution_is_shown_under_its_own_agreement_alone(house, running):
    other = house.door.order()["sub"]
    for method, what in (("GET", "status"), ("GET", "logs"), ("DELETE", "stop")):
        answer = house.watch(method, what, other, running[1])
        assert (answer.status_code, answer.json["check"]) == (403, "execution_of_agreement")


def test_the_executions_of_an_agreement_are_listed_and_no_other_s(house, running):
    other = house.door.order()
    assert house.execute(other).status_code == 200
    headers = house.door.bearer("compute", sub=running[0], execution_id="*")
    assert house.door.call("GET", f"/compute/list/{running[0]}", headers).json == [running[1]]
    refused = house.door.call("GET", f"/compute/list/{other['sub']}", headers)
    assert (refused.status_code, refused.json["check"]) == (403, "token_agreement")
    one = house.door.bearer("compute", sub=running[0], execution_id=running[1])
    assert house.door.call("GET", f"/compute/list/{running[0]}", one).json["check"] == "token_execution"


def test_an_unknown_execution_is_not_found(house):
    answer = house.watch("GET", "status", house.door.order()["sub"], "nvm-fl-none")
    assert (answer.status_code, answer.json["check"]) == (404, "execution_exists")


def test_a_gateway_that_is_started_again_touches_no_job(house, running):
    agreement, execution = running
    again = Door(house.door.settings.home, house.market, launcher=Launcher(house.url, SECRET))
    headers = again.bearer("compute", sub=agreement, execution_id=execution)
    assert again.call("GET", f"/compute/status/{agreement}/{execution}", headers).json["id"] == execution
    again.gateway.launcher.close()


def test_a_buyer_asks_for_a_review_and_the_provider_sees_who(house):
    body = {"algorithm": house.market.algorithm, "workflow": house.market.workflow}
    headers = house.door.bearer("fl/review", did=house.market.workflow)
    answer = house.door.call("POST", "/fl/reviews", headers, json=body)
    assert (answer.status_code, answer.json["state"]) == (200, "pending")
    (asked,) = house.launcher.approvals.list()
    assert (asked.requested_by, asked.algorithm) == (BUYER.address, house.market.algorithm)


def test_the_wrong_secret_is_the_provider_s_problem_not_the_buyer_s(house):
    door = Door(house.door.settings.home, house.market, launcher=Launcher(house.url, "a guess"))
    answer = door.call("GET", f"/fl/sessions/{house.market.session}/record")
    assert (answer.status_code, answer.json["check"]) == (503, "unreachable")
    assert "secret" not in answer.text
    door.gateway.launcher.close()


def test_anybody_may_read_a_session_s_record(house):
    path = f"/fl/sessions/{house.market.session}/record"
    missing = house.door.call("GET", path)
    assert (missing.status_code, missing.json["check"]) == (404, "record_exists")
    house.issue_record(house.market.session)
    found = house.door.call("GET", path).json
    address = house.door.gateway.account.address
    assert verify_record(found["record"], session=house.market.session, expected={address}).phase == "selection"
    assert house.door.call("GET", f"{path}?after={found['seq']}").status_code == 204


def test_who_waits_for_a_record_gets_it_when_it_comes(house):
    path = f"{house.door.prefix}/fl/sessions/{house.market.session}/record?wait=20"
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        waiting = pool.submit(lambda: house.door.app.test_client().get(path))
        asked_at(house, waiting)
        house.issue_record(house.market.session)
        assert waiting.result(10).json["seq"] == 1
        assert time.monotonic() - begun < 10


def asked_at(house, waiting):
    """Return when the launcher knows that somebody waits."""
    while not waiting.done() and not house.launcher.records._news:
        threading.Event().wait(0.01)


def test_when_too_many_wait_the_next_is_answered_at_once(house):
    while house.door.gateway.polls.acquire(blocking=False):
        pass
    begun = time.monotonic()
    assert house.door.call("GET", f"/fl/sessions/{house.market.session}/record?wait=20").status_code == 404
    assert time.monotonic() - begun < 10


class PlainText(http.server.BaseHTTPRequestHandler):
    """The upstream compute API refuses with a line of text."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b"workflow is not valid")

    def log_message(self, *_):
        pass


def test_a_compute_api_that_refuses_in_plain_text_is_quoted(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), PlainText) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        door = Door(tmp_path, launcher=Launcher(f"http://127.0.0.1:{server.server_port}", SECRET))
        claims = door.order()
        answer = door.call("POST", f"/execute/{claims['sub']}", door.bearer("execute", **claims))
        thread.join(10)
        door.gateway.launcher.close()
    assert (answer.status_code, answer.json["check"]) == (400, "launcher")
    assert answer.json["message"] == "workflow is not valid"
