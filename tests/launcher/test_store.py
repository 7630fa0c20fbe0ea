"""What survives a restart: jobs, record numbers, approvals, content."""

import json
from dataclasses import replace

import pytest

from nevermined_fl.errors import Conflict, DecodeError, NotFound
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.content import Content, receive
from nevermined_fl.launcher.events import read_events
from nevermined_fl.launcher.inputs import lay_out
from nevermined_fl.launcher.order import Order, RemoteFile
from nevermined_fl.launcher.store import Job, Store

DIGEST = "sha256:" + "c1" * 32
ORDER = Order(
    kind="participant",
    agreement="0x" + "a1" * 32,
    did="did:nv:" + "d1" * 32,
    session="did:nv:" + "5e" * 32,
    compute="did:nv:" + "c0" * 32,
    workflow="did:nv:" + "1f" * 32,
    consumer="0xC0",
    members=("did:nv:" + "d1" * 32, "did:nv:" + "d2" * 32),
    parameters={"rounds": 2, "schema": [{"name": "w", "shape": [2, 3]}]},
    amounts=(2**200, 3),
    receivers=("0x1", "0x2"),
    file=RemoteFile("did:nv:" + "a9" * 32, 0, "http://g:1", DIGEST, 11),
    examples=600,
)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "provider.sqlite")
    yield store
    store.close()


def test_a_job_comes_back_as_it_was(store, tmp_path):
    job = Job("one", ORDER, 100.0)
    store.add(job)
    changed = store.change("one", stage="running", status="Running", stopping=True, port=20001, started=101.5)
    assert changed == replace(job, stage="running", status="Running", stopping=True, port=20001, started=101.5)
    again = Store(tmp_path / "provider.sqlite")
    assert again.all() == again.live() == again.of_agreement(ORDER.agreement) == (changed,)
    again.close()
    assert (tmp_path / "provider.sqlite").stat().st_mode & 0o777 == 0o600


def test_one_live_execution_per_agreement(store):
    store.add(Job("one", ORDER, 100.0))
    with pytest.raises(Conflict) as caught:
        store.add(Job("two", ORDER, 101.0))
    assert caught.value.check == "one_live_execution"
    store.change("one", finished=102.0)
    store.add(Job("two", ORDER, 103.0))
    assert [job.id for job in store.live()] == ["two"]


def test_a_coordinator_that_is_ordered_again_is_the_execution_of_its_agreement(store):
    """Its buyer lost the first answer, and asks for the execution; a session that another runs is none of his."""
    first = replace(ORDER, kind="coordinator")
    store.add(Job("one", first, 100.0), ended=0)
    with pytest.raises(Conflict) as caught:
        store.add(Job("two", first, 101.0), ended=0)
    assert caught.value.check == "one_live_execution"
    store.change("one", finished=102.0)
    store.add(Job("two", replace(first, agreement="0x" + "a2" * 32), 103.0), ended=0)
    with pytest.raises(Conflict) as caught:
        store.add(Job("three", first, 104.0), ended=1)
    assert caught.value.check == "one_live_session"


def test_an_execution_that_ends_while_another_is_judged_leaves_its_agreement_for_nobody(store):
    store.add(Job("one", ORDER, 100.0), ended=0)
    store.change("one", finished=102.0)
    with pytest.raises(Conflict) as caught:
        store.add(Job("two", ORDER, 103.0), ended=0)
    assert caught.value.check == "one_live_execution"
    store.add(Job("three", ORDER, 104.0), ended=1)
    assert [job.id for job in store.live()] == ["three"]


def test_one_live_coordinator_per_session_and_port(store):
    first = replace(ORDER, kind="coordinator")
    store.add(Job("one", first, 100.0, port=20000))
    with pytest.raises(Conflict) as caught:
        store.add(Job("two", replace(first, agreement="0x" + "a2" * 32), 101.0))
    assert caught.value.check == "one_live_session"
    store.add(Job("three", replace(first, agreement="0x" + "a3" * 32, session="did:nv:" + "5f" * 32), 102.0))
    with pytest.raises(Conflict) as caught:
        store.change("three", port=20000)
    assert caught.value.check == "port_free"


def test_nobody_s_job(store):
    with pytest.raises(NotFound):
        store.get("nvm-fl-nothing")


def test_record_numbers_are_kept(store):
    assert store.record(ORDER.session) is None
    store.keep_record(ORDER.session, 3, "third")
    store.keep_record(ORDER.session, 4, "fourth")
    assert store.record(ORDER.session) == (4, "fourth")
    assert store.seen(ORDER.session) is None
    store.keep_seen(ORDER.session, 7)
    assert store.seen(ORDER.session) == 7


def test_admissions_are_kept_once(store):
    for _ in range(2):
        store.admit("one", ORDER.did, ORDER.agreement)
    assert store.admitted("one") == {(ORDER.did, ORDER.agreement)}
    assert store.admitted("two") == frozenset()


# --- approvals -----------------------------------------------------------------------------------------------------


@pytest.fixture
def approvals(tmp_path):
    approvals = Approvals(tmp_path / "provider.sqlite")
    yield approvals
    approvals.close()


def test_nothing_is_approved_until_the_provider_says_so(approvals):
    assert not approvals.is_approved(DIGEST)
    found = approvals.request(DIGEST, algorithm="did:nv:a", initial_model="sha256:m", requested_by="0xB")
    assert (found.state, found.decided) == ("pending", None)
    assert not approvals.is_approved(DIGEST)
    assert approvals.approve(DIGEST).state == "approved"
    assert approvals.is_approved(DIGEST)
    assert not approvals.is_approved("sha256:" + "c2" * 32)


def test_asking_again_changes_no_decision(approvals):
    approvals.request(DIGEST, algorithm="did:nv:a")
    approvals.revoke(DIGEST)
    assert approvals.request(DIGEST, algorithm="did:nv:b").state == "revoked"
    assert not approvals.is_approved(DIGEST)
    assert [row.algorithm for row in approvals.list()] == ["did:nv:a"]


def test_another_process_decides(approvals, tmp_path):
    approvals.request(DIGEST, algorithm="did:nv:a")
    cli = Approvals(tmp_path / "provider.sqlite")
    assert cli.approve("did:nv:a").digest == DIGEST
    cli.close()
    assert approvals.is_approved(DIGEST)


def test_a_digest_may_be_approved_before_anybody_asks(approvals):
    approvals.approve(DIGEST.removeprefix("sha256:"))
    assert approvals.is_approved(DIGEST)
    with pytest.raises(NotFound):
        approvals.approve("did:nv:unknown")


# --- files ---------------------------------------------------------------------------------------------------------


async def take(content, digest, size, *blocks):
    async with receive(content.place(digest), digest=digest, size=size) as incoming:
        for block in blocks:
            incoming.feed(block)


async def test_content_is_what_it_says(tmp_path):
    content = Content(tmp_path / "content")
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    digest = content.add(tmp_path / "file")
    assert content.path(digest).read_bytes() == b"abc" * 1000
    other = Content(tmp_path / "other")
    await take(other, digest, 3000, b"abc" * 500, b"abc" * 500)
    assert other.has(digest)


@pytest.mark.parametrize("blocks", [[b"abc" * 999], [b"abc" * 1001], [b"abd" * 1000], []])
async def test_content_that_is_something_else_is_not_kept(tmp_path, blocks):
    content = Content(tmp_path / "content")
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    digest = Content(tmp_path / "reference").add(tmp_path / "file")
    with pytest.raises(DecodeError):
        await take(content, digest, 3000, *blocks)
    assert list((tmp_path / "content").iterdir()) == []
    with pytest.raises(NotFound):
        content.path(digest)


def test_a_dataset_is_laid_out_without_its_links(tmp_path):
    source = tmp_path / "data"
    (source / "more").mkdir(parents=True)
    (source / "rows.csv").write_text("a\n1\n")
    (source / "more" / "rows.csv").write_text("a\n2\n")
    (tmp_path / "key.json").write_text("secret")
    (source / "sly").symlink_to(tmp_path / "key.json")
    lay_out(source, tmp_path / "inputs")
    lay_out(source, tmp_path / "inputs")  # after a restart
    found = {str(path.relative_to(tmp_path / "inputs")) for path in (tmp_path / "inputs").rglob("*")}
    assert found == {"rows.csv", "more", "more/rows.csv"}
    lay_out(source / "rows.csv", tmp_path / "single")
    assert [path.name for path in (tmp_path / "single").iterdir()] == ["rows.csv"]


# --- events --------------------------------------------------------------------------------------------------------

CANARY = 73_219_458.25


def test_known_events_with_known_fields_are_shown(tmp_path):
    lines = [
        {"time": 1.5, "event": "joined", "participant": ORDER.did, "n": 4},
        {"time": 2.5, "event": "evaluated", "round": 1, "metrics": {"accuracy": 0.5, "patient": CANARY}},
        {"time": 3.5, "event": "algorithm_failed", "kind": "ValueError", "line": 12, "message": f"row {CANARY}"},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_events(path, metrics=["accuracy"]) == [
        {"time": 1.5, "event": "joined", "participant": ORDER.did},
        {"time": 2.5, "event": "evaluated", "round": 1, "metrics": {"accuracy": 0.5}},
        {"time": 3.5, "event": "algorithm_failed", "kind": "ValueError", "line": 12},
    ]


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"time": 1, "event": f"canary {CANARY}"}),
        json.dumps({"time": "now", "event": "joined"}),
        json.dumps({"time": 1, "event": "joined"})[:-1],
        "[" * 5000,
        json.dumps([1]),
        '{"time": NaN, "event": "joined"}',
        json.dumps({"time": 1, "event": ["joined"]}),
    ],
)
def test_other_lines_are_not(tmp_path, line):
    (tmp_path / "events.jsonl").write_text(f"{line}\n")
    assert read_events(tmp_path / "events.jsonl", metrics=()) == []


def test_a_field_is_a_plain_word_or_a_number(tmp_path):
    line = {
        "time": 1,
        "event": "joined",
        "kind": f"it is {CANARY}, says he",
        "round": [CANARY],
        "code": "x" * 81,
        "line": 1e300,
    }
    (tmp_path / "events.jsonl").write_text(json.dumps(line) + "\n")
    assert read_events(tmp_path / "events.jsonl", metrics=()) == [{"time": 1, "event": "joined"}]


def test_a_link_in_place_of_the_events_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text('{"time": 1, "event": "joined"}\n')
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "secret")
    assert read_events(tmp_path / "events.jsonl", metrics=()) == []
