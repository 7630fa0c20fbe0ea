"""The log of events: who is refused without end fills no disk, and silences nobody else."""

from __future__ import annotations

from collections import Counter

from transport_worlds import ALICE, BOB, SESSION

from nevermined_fl.driver.story import EventLog


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
