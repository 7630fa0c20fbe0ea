"""How a session is doing, in the words that people read."""

from nevermined_fl.marketplace.progress import headline, headline_with_time, members, sentence, waiting_for

A, B, C, D = ("did:nv:" + letter * 64 for letter in "abcd")
REPORTING = {
    "phase": "reporting",
    "round": 3,
    "rounds": 10,
    "attempt": 0,
    "updates": 1,
    "target": 3,
    "deadline": 1000.0,
    "remaining": 41.4,
    "problem": "",
    "members": [
        {"participant": A, "state": "reported", "seconds": 90.2},
        {"participant": B, "state": "uploading", "bytes": 400, "total": 1000, "seconds": 0.4},
        {"participant": C, "state": "silent", "seconds": 41.4},
        {"participant": D, "state": "refused", "code": "late"},
    ],
}


def test_a_round_that_waits_says_for_what_and_how_long():
    assert headline_with_time(REPORTING) == "round 3 of 10: reporting, 1 of 3 updates, 41 s left"
    assert headline(REPORTING | {"attempt": 1}) == "round 3 of 10, attempt 2: reporting, 1 of 3 updates"
    assert headline_with_time(REPORTING | {"remaining": -7}).endswith(", 0 s left")
    assert headline_with_time(REPORTING | {"remaining": None}) == headline(REPORTING)


def test_those_who_are_late_come_first_and_say_why():
    assert members(REPORTING) == [
        (C, "silent", "heard of 41 s ago"),
        (B, "uploading", "400 of 1000 bytes, heard of 0 s ago"),
        (D, "refused", "late"),
        (A, "reported", ""),
    ]
    assert waiting_for(REPORTING) == "1 silent, 1 uploading, 1 refused, 1 reported"


def test_before_the_first_round_there_is_none():
    assert headline({"phase": "selection", "round": 0, "rounds": 10, "problem": ""}) == "selection"
    assert members({"phase": "selection"}) == []


def test_a_full_disk_is_said():
    assert headline({"phase": "aggregation", "round": 2, "problem": "disk_full"}) == (
        "round 2: aggregation, waiting for room on the coordinator's disk"
    )


def test_what_went_otherwise_than_planned_is_a_sentence():
    stopped = {"event": "stopped_early", "round": 4, "code": "target"}
    assert sentence(stopped) == "stopped early, after round 4: the metric reached its target"
    assert sentence(stopped | {"code": "tolerance"}).endswith("the metric got no better")
    assert sentence({"event": "round_repeated", "round": 2, "attempt": 1}) == (
        "round 2 is repeated: too few updates came in time"
    )
    assert sentence({"event": "initialized"}) == "a participant made the first model"
