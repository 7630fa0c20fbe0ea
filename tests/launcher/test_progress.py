"""How far a session is: what a coordinator's status.json may say, and what of anything else is passed on."""

import json

import pytest
from launcher_world import BUYER

from nevermined_fl.launcher.app import COMPUTE
from nevermined_fl.launcher.progress import read_progress

A, B = ("did:nv:" + letter * 64 for letter in "ab")
CANARY = "patient 73219458"


def read(folder, body, members=(A, B)):
    (folder / "status.json").write_text(body if isinstance(body, str) else json.dumps(body))
    return read_progress(folder / "status.json", members)


def test_phase_round_deadline_and_who_is_late(tmp_path):
    said = {
        "phase": "reporting",
        "round": 3,
        "turn": 7,
        "deadline": 1769860800.5,
        "remaining": 41.3,
        "members": [
            {"participant": B, "state": "uploading", "bytes": 400, "total": 1000},
            {"participant": A, "state": "refused", "code": "late"},
        ],
        "problem": "",
    }
    found = read(tmp_path, said)
    assert [row["participant"] for row in found["members"]] == [A, B]
    assert found == said | {"members": said["members"][::-1]}


@pytest.mark.parametrize(("now", "remaining"), [(1012.0, 29.3), (1060.0, 0.0), (900.0, 41.3)])
def test_the_seconds_that_remain_are_those_of_whoever_asks(tmp_path, now, remaining):
    said = {"phase": "reporting", "time": 1000.0, "deadline": 1041.3, "remaining": 41.3}
    read(tmp_path, said)
    found = read_progress(tmp_path / "status.json", (), now=now)
    assert found == said | {"remaining": remaining, "problem": "", "members": []}


def test_only_members_numbers_and_known_words_pass(tmp_path):
    found = read(
        tmp_path,
        {
            "phase": "evaluation",
            "round": CANARY,
            "deadline": 10**20,
            "secret": CANARY,
            "problem": CANARY,
            "members": [
                {"participant": CANARY, "state": "training"},
                {"participant": [A], "state": "training"},
                {"participant": A, "state": CANARY, "code": CANARY, "bytes": [CANARY], "note": CANARY, "seconds": True},
                {"participant": A, "state": "training"},
                CANARY,
            ],
        },
    )
    assert found == {"phase": "evaluation", "problem": "other", "members": [{"participant": A, "state": "unknown"}]}


@pytest.mark.parametrize(
    "body",
    ["", "[]", "[" * 100_000, '{"phase": "patient"}', '{"phase": ["reporting"]}', '{"round": 1}', '{"phase": NaN}'],
)
def test_a_file_that_makes_no_sense_is_none(tmp_path, body):
    assert read(tmp_path, body) is None


def test_members_that_are_no_list_are_none(tmp_path):
    assert read(tmp_path, {"phase": "selection", "members": {A: "training"}})["members"] == []
    assert read(tmp_path, {"phase": "selection", "problem": ["x"]})["problem"] == "other"


def test_no_file_a_link_and_one_that_is_too_large_are_none(tmp_path):
    assert read_progress(tmp_path / "status.json", (A,)) is None
    (tmp_path / "elsewhere").write_text('{"phase": "selection"}')
    (tmp_path / "status.json").symlink_to(tmp_path / "elsewhere")
    assert read_progress(tmp_path / "status.json", (A,)) is None
    (tmp_path / "status.json").unlink()
    assert read(tmp_path, '{"phase": "selection", "more": "' + "x" * 9 * 1024**2 + '"}') is None


async def test_the_buyer_is_told_by_the_coordinator_s_launcher(world):
    world.begin_session(coordinator="hang")
    cloud = await world.begin(world.cloud)
    await world.cloud.reach(cloud, "running")
    first, second = world.members
    said = {"phase": "reporting", "round": 1, "members": [{"participant": second, "state": "silent", "seconds": 41.5}]}
    said |= {"time": world.cloud.launcher.clock() - 3600, "remaining": 41.5}
    (world.cloud.launcher.work(cloud) / "status.json").write_text(json.dumps(said))
    status = await world.cloud.status(cloud)
    assert status["progress"] == said | {"problem": "", "remaining": 0.0}
    assert first not in json.dumps(status["progress"])
    await world.cloud.ask("DELETE", f"{COMPUTE}/stop/{cloud}")
    over = await world.cloud.wait(cloud)
    assert over["progress"]["phase"] == "reporting"


async def test_the_payment_of_a_job_that_is_over_is_what_the_chain_says_today(world):
    world.begin_session(coordinator="too few")
    job = await world.begin(world.cloud)
    assert (await world.cloud.wait(job))["payment"] == "locked"
    world.chain.mine(500)
    agreement = world.agreements[world.cloud.account.address]
    world.chain.abort_by_timeout(BUYER, agreement)
    assert (await world.cloud.status(job))["payment"] == "aborted"
    terms = {"did": world.compute, "amounts": (7,), "receivers": (world.cloud.account.address,)}
    world.chain.release(BUYER, agreement, consumer=BUYER.address, **terms)
    assert (await world.cloud.status(job))["payment"] == "refunded"
