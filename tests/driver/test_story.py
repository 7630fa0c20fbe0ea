"""The log of events: who is refused without end fills no disk, and silences nobody else."""

from __future__ import annotations

from collections import Counter

import pytest
from federation import make_plan
from transport_worlds import ALICE, BOB, SESSION, digest, make_model

from nevermined_fl.driver.story import EventLog, tell
from nevermined_fl.session import Phase, Session, events, step
from nevermined_fl.session.state import Member

MODEL = digest(make_model(1.0))


def refusal(participant=""):
    line = {"event": "update_rejected" if participant else "rejected", "code": "late"}
    return line | ({"participant": participant} if participant else {})


def test_refusals_of_strangers_do_not_silence_those_of_members(tmp_path):
    heard = []
    log = EventLog(tmp_path / "events.jsonl", SESSION, heard.append)
    for who in ("", ALICE):
        for _ in range(3000):
            log.write([refusal(who)], 1.0)
    log.write([refusal(BOB)], 1.0)
    log.close()
    assert Counter(line.get("participant", "") for line in heard) == {"": 1000, ALICE: 100, BOB: 1}
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1101


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (events.Reported(ALICE, 3, MODEL, MODEL, 10), {"event": "update_rejected", "code": "late", "round": 3}),
        (events.Evaluated(ALICE, 4, MODEL, 10), {"event": "rejected", "code": "late", "round": 4}),
        (events.Joined(ALICE, "another"), {"event": "rejected", "code": "other_agreement", "round": 5}),
    ],
)
def test_a_refused_answer_is_told_with_the_round_that_it_was_about(event, line):
    plan = make_plan((ALICE, BOB), make_model(1.0), rounds=9)
    members = tuple(Member(name, "0x1") for name in (ALICE, BOB))
    session = Session(SESSION, plan, Phase.REPORTING, MODEL, 60.0, round=5, members=members, cohort=(ALICE, BOB))
    after, ordered = step(session, event, 1.0)
    assert tell(session, event, after, ordered, changed=False) == [line | {"participant": ALICE}]
