"""Strangers' words in our logs stay words."""

import json
import os
import subprocess
import sys

PROGRAM = """
import logging
from nevermined_fl import logs

logs.configure()
logger = logging.getLogger("gateway")
logger.info("refused %s", "GET /x\\n2026-01-01 INFO gateway: approved\\x1b[2J\\u2028")
try:
    raise ValueError("a\\nb")
except ValueError:
    logger.exception("failed")
where = {"session": "did:nv:51", "round": 3, "participant": "did:nv:a\\nb"}
logger.warning("refused: %s", "late", extra=where)
logger.debug("not shown", extra=where)
logger.warning("round %d", 0, extra={"session": "did:nv:51", "round": 0, "participant": ""})
logs.bind(session="did:nv:52", round=4)
logger.warning("all that follows", extra={"participant": "did:nv:b"})
logger.warning("but for what says it", extra={"session": "did:nv:53"})
"""


def lines_of(**environment):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return done.stderr.splitlines()


def test_a_record_is_a_line_and_a_traceback_keeps_its_own():
    first, second, *trace = lines_of()
    assert first.endswith(r"INFO gateway: refused GET /x\x0a2026-01-01 INFO gateway: approved\x1b[2J\u2028")
    assert second.endswith("ERROR gateway: failed")
    assert trace[0] == "Traceback (most recent call last):"


def test_a_line_says_which_session_round_and_participant_it_is_about():
    *_, refused, last, bound, own = lines_of()
    assert refused.endswith(r"WARNING gateway: refused: late session=did:nv:51 round=3 participant=did:nv:a\x0ab")
    assert last.endswith("WARNING gateway: round 0 session=did:nv:51 round=0")
    assert bound.endswith("WARNING gateway: all that follows session=did:nv:52 round=4 participant=did:nv:b")
    assert own.endswith("WARNING gateway: but for what says it session=did:nv:53 round=4")


def test_programs_get_one_object_a_line():
    first, second, refused, last, *_ = (json.loads(line) for line in lines_of(NEVERMINED_FL_LOG="json"))
    assert first["message"] == "refused GET /x\n2026-01-01 INFO gateway: approved\x1b[2J\u2028"
    assert second["traceback"].splitlines()[-1] == "b"
    assert {name: refused[name] for name in refused if name != "time"} == {
        "level": "WARNING",
        "logger": "gateway",
        "message": "refused: late",
        "session": "did:nv:51",
        "round": 3,
        "participant": "did:nv:a\nb",
    }
    assert (last["round"], "participant" in last) == (0, False)
