"""Every refusal of the gateway: status, check, and the form of the answer."""

import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from gateway_cases import CASES
from gateway_world import Door

import gateway_plugin
from gateway_plugin.checks import CHECKS
from nevermined_fl import permissions


@pytest.mark.parametrize(("ask", "status", "check"), CASES, ids=[f"{case[2]}: {case[0].__name__}" for case in CASES])
def test_a_refusal_names_its_check(ask, status, check, tmp_path):
    answer = ask(Door(tmp_path))
    assert (answer.status_code, answer.json["check"]) == (status, check)
    assert answer.json["error_description"] == answer.json["message"]
    assert answer.json["error"].replace("_", "").isalpha()
    assert answer.mimetype == "application/json"
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_no_check_is_dead():
    tested = {check for _, _, check in CASES}
    # These two need a launcher: test_gateway_with_launcher.py has them.
    assert set(CHECKS) - tested == {"execution_of_agreement", "launcher"}
    assert tested <= {*CHECKS, *permissions.CHECKS}


def test_every_check_in_the_code_is_listed():
    code = "".join(path.read_text() for path in Path(gateway_plugin.__file__).parent.glob("*.py"))
    assert set(re.findall(r'check="(\w+)"|"check": "(\w+)"', code)) <= {(n, "") for n in CHECKS} | {
        ("", n) for n in CHECKS
    }


def test_refusals_say_nothing_of_the_inside(tmp_path):
    ask = next(case[0] for case in CASES if case[2] == "internal")
    assert str(tmp_path) not in ask(Door(tmp_path)).text


def test_of_many_equal_assertions_at_once_one_is_taken(tmp_path):
    door = Door(tmp_path)
    assertion = door.assertion("fl/upload")

    def trade(_):
        client = door.app.test_client()
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        return client.post(f"{door.prefix}/oauth/token", data=form).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(trade, range(16))) == [200] + [401] * 15


def test_used_assertions_are_forgotten_when_they_have_expired(tmp_path):
    door = Door(tmp_path)
    for _ in range(3):
        door.ask_token("fl/upload")
    door.now += 301
    door.ask_token("fl/upload")
    with closing(sqlite3.connect(tmp_path / "gateway.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM assertions").fetchone() == (1,)
