"""Writing: one event after the other, each kept twice, and the same events again after a restart.

Rule 1: a row is never changed. Rule 2: replaying the rows in order gives the session again, so effects run after the
append. Rule 3: a row stands in SQLite for those who look things up and in a text file, each with a digest over itself and
all rows before it. A torn or flipped page, a lost write-ahead log or a cut file is noticed, and costs what both lack.

An append survives the death of any process; ``sync`` makes what came so far survive the loss of power.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from nevermined_fl.files import lock_file, storage
from nevermined_fl.journal.mending import mend
from nevermined_fl.journal.rows import Row, chain, connect, create, insert

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Journal"]

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode

_CHECKPOINT = 1 << 20
"""Bytes of rows from which on the write-ahead log is moved into the database, when the disk is waited for anyway."""


class Journal:
    """Numbered events from 1 on; row 1 says how the session was started."""

    def __init__(self, path: Path) -> None:
        """Open or create; what is damaged is put right, and kept under another name.

        Raises:
            SettingsError: another process writes this journal.
            StorageFull: there is no room.
        """
        lines = path.with_suffix(".lines")
        self._path = path
        self._fresh = 0
        self._lock = lock_file(path.with_suffix(".lock"), "coordinator")
        try:
            self._count, self._chain = mend(path, lines)
            self._table = create(path)
            self._lines = os.open(lines, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, now: float, event: Mapping[str, Any], *, participant: str = "", signed: str = "") -> int:
        """Write one event; returns its number.

        Args:
            now: when it happened, Unix seconds.
            event: its JSON form.
            participant: who caused it.
            signed: the participant's own signed words that caused it, kept as proof.

        Raises:
            StorageFull: there is no room; nothing was written.
        """
        text = _encode(event)
        row = Row(self._count + 1, float(now), participant, signed, text)
        row = Row(row.n, row.now, participant, signed, text, chain(self._chain, row.text()))
        end = os.lseek(self._lines, 0, os.SEEK_END)
        try:
            with storage("the journal", needed=64 * 1024):
                _write_all(self._lines, row.line())
            insert(self._table, row)
        except BaseException:
            os.ftruncate(self._lines, end)
            raise
        self._count, self._chain = row.n, row.chain
        self._fresh += len(text) + len(signed)
        return row.n

    def replay(self) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """Every event in order: number, time, JSON form."""
        for number, now, text in self._table.execute("SELECT n, now, event FROM events ORDER BY n"):
            yield number, now, json.loads(text)

    def proofs(self) -> Iterator[tuple[int, str, str]]:
        """Signed words in order: number of the event, participant, JWS."""
        yield from self._table.execute("SELECT n, participant, signed FROM events WHERE signed != '' ORDER BY n")

    def sync(self) -> None:
        """Make what was appended survive the loss of power; from any thread.

        Raises:
            StorageFull: there is no room.
        """
        with storage("the journal"):
            os.fsync(self._lines)
        if self._fresh >= _CHECKPOINT:
            self._fresh = 0
            # A connection of its own does not hold up the writer; one that fails is made up for by the next.
            with closing(connect(self._path)) as db, suppress(sqlite3.OperationalError):
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Let go of the files."""
        self._table.close()
        os.close(self._lines)
        os.close(self._lock)


def _write_all(handle: int, line: bytes) -> None:
    while line:
        line = line[os.write(handle, line) :]
