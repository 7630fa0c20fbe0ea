"""The journal: what is in it survives the death of its writer, and whatever befalls one of its files."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from nevermined_fl.errors import SettingsError, StorageFull
from nevermined_fl.journal import Journal

ROWS = 60

WRITER = """
import sys
from pathlib import Path
from nevermined_fl.journal import Journal
journal = Journal(Path(sys.argv[1]))
for n in range(7):
    journal.append(100.0 + n, {"type": "ticked", "k": n}, participant="p", signed=f"jws{n}" if n % 3 == 0 else "")
print("ready", flush=True)
sys.stdin.read()
"""


def fill(path, rows=ROWS):
    """A journal whose writer was killed: nothing was moved out of the write-ahead log."""
    program = f"""
import os
from pathlib import Path
from nevermined_fl.journal import Journal
journal = Journal(Path({str(path)!r}))
for n in range({rows}):
    journal.append(100.0 + n, {{"type": "reported", "k": n, "text": "x" * 150}}, signed="jws" * 30)
    if n == {rows} // 2:
        journal._table.execute("PRAGMA wal_checkpoint(PASSIVE)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def rows_of(path):
    journal = Journal(path)
    try:
        return [(n, now, event["k"]) for n, now, event in journal.replay()]
    finally:
        journal.close()


def whole(rows=ROWS):
    return [(n + 1, 100.0 + n, n) for n in range(rows)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    fill(folder / "journal.sqlite")
    return folder


@pytest.fixture
def path(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "job")
    return tmp_path / "job" / "journal.sqlite"


def test_events_come_back_in_order_after_the_writer_was_killed(tmp_path):
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"ready\n"
        os.kill(writer.pid, signal.SIGKILL)
    journal = Journal(path)
    assert list(journal.replay()) == [(n + 1, 100.0 + n, {"type": "ticked", "k": n}) for n in range(7)]
    assert list(journal.proofs()) == [(1, "p", "jws0"), (4, "p", "jws3"), (7, "p", "jws6")]
    assert journal.append(200.0, {"type": "ticked"}) == 8
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal", "journal.lines"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 0.7, 0.98, "last page", "last byte"])
def test_a_file_that_was_cut_costs_nothing(path, name, share):
    file = path.with_name(name)
    size = file.stat().st_size
    left = {"last page": max(0, size - 4096), "last byte": size - 1}.get(share)
    os.truncate(file, int(size * share) if left is None else left)
    assert rows_of(path) == whole()
    assert rows_of(path) == whole()


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal", "journal.lines"])
def test_flipped_bytes_cost_nothing(path, name):
    file = path.with_name(name)
    raw = file.read_bytes()
    # Every region of the file: headers, the first and the last page, and what lies between.
    for position in sorted({*range(0, 128, 9), *range(128, len(raw), max(1, len(raw) // 40)), len(raw) - 3}):
        folder = path.parent.parent / f"at-{position}"
        shutil.copytree(path.parent, folder)
        flipped = bytearray(raw)
        flipped[position] ^= 0x5A
        (folder / name).write_bytes(flipped)
        assert rows_of(folder / "journal.sqlite") == whole(), position
        journal = Journal(folder / "journal.sqlite")
        assert journal.append(999.0, {"k": 60}) == 61
        journal.close()
        assert rows_of(folder / "journal.sqlite") == [*whole(), (61, 999.0, 60)]


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.lines"])
def test_a_file_that_is_gone_costs_nothing(path, name):
    path.with_name(name).unlink()
    assert rows_of(path) == whole()


def test_a_file_that_is_damaged_is_kept_under_another_name_and_said(path, caplog):
    os.truncate(path, 5000)
    path.with_name("journal.sqlite-wal").unlink()
    was = path.read_bytes()
    assert rows_of(path) == whole()
    assert path.with_name("journal.sqlite.damaged-1").read_bytes() == was
    assert "journal.sqlite is damaged" in caplog.text
    assert "the journal has 60 good rows" in caplog.text


def test_what_both_copies_lost_is_lost_and_nothing_else(path):
    """Row 41 is flipped in the text; the table ends after row 31, as far as it was moved out of the log."""
    path.with_name("journal.sqlite-wal").unlink()
    lines = path.with_name("journal.lines")
    rows = lines.read_bytes().splitlines(keepends=True)
    rows[40] = rows[40].replace(b"xxxx", b"xxyx", 1)
    lines.write_bytes(b"".join(rows))
    assert rows_of(path) == whole(40)
    assert path.with_name("journal.lines.damaged-1").read_bytes() == b"".join(rows)


def test_damage_at_different_places_of_both_copies_costs_nothing(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET event = replace(event, 'xx', 'xy') WHERE n IN (7, 8, 20)")
    db.close()
    lines = path.with_name("journal.lines")
    rows = lines.read_bytes().splitlines(keepends=True)
    del rows[30]
    rows[44] = b"\xff\x00" + rows[44]
    lines.write_bytes(b"".join(rows))
    assert rows_of(path) == whole()


def test_a_row_that_was_changed_along_with_its_own_digest_does_not_count(path):
    lines = path.with_name("journal.lines")
    with sqlite3.connect(path) as db:
        [(chain,)] = db.execute("SELECT chain FROM events WHERE n = 9")
        db.execute("UPDATE events SET chain = ? WHERE n = 10", (chain,))
    db.close()
    rows = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join([*rows[:9], *rows[10:]]))
    assert rows_of(path) == whole(9)


def test_where_nothing_can_be_read_it_begins_anew_and_keeps_the_file(tmp_path, caplog):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"something else " * 100)
    assert rows_of(path) == []
    assert path.with_name("journal.sqlite.damaged-1").read_bytes() == b"something else " * 100
    assert "is damaged" in caplog.text


def test_two_writers_at_once_are_one_too_many(path):
    journal = Journal(path)
    with pytest.raises(SettingsError, match="another coordinator"):
        Journal(path)
    journal.close()
    assert rows_of(path) == whole()


def test_what_was_synced_is_in_the_database_and_the_log_does_not_grow_for_ever(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    log = tmp_path / "journal.sqlite-wal"
    sizes = []
    for n in range(6):
        for _ in range(400):
            journal.append(float(n), {"k": n, "text": "y" * 3000})
        journal.sync()
        sizes.append(log.stat().st_size)
    assert max(sizes) < 1.2 * sizes[0]
    assert (tmp_path / "journal.sqlite").stat().st_size > 400 * 3000 * 5
    journal.close()


FULL = """
import resource, sys
from pathlib import Path
from nevermined_fl.errors import StorageFull
from nevermined_fl.journal import Journal

journal = Journal(Path(sys.argv[1]))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
written = 0
try:
    for written in range(10_000):
        journal.append(100.0 + written, {"k": written, "text": "x" * 150})
except StorageFull as full:
    assert full.needed > 0
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert journal.append(100.0 + written, {"k": written}) == written + 1
assert journal.append(101.0 + written, {"k": written + 1}) == written + 2
print(written + 2)
"""


@pytest.mark.parametrize("limit", [20_000, 65_537, 100_000])
def test_a_full_disk_refuses_a_row_whole_and_takes_it_later(tmp_path, limit):
    """Between them the limits strike the text file and the write-ahead log."""
    path = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", FULL, str(path), str(limit)]
    count = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert rows_of(path) == whole(count)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_a_repair_without_room_changes_nothing(path):
    path.with_name("journal.lines").unlink()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageFull):
            Journal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert rows_of(path) == whole()
