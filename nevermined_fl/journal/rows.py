"""Rows and their two copies, read with suspicion: a row counts only if its digest follows from those before it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nevermined_fl.errors import StorageFull

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Copy", "Lines", "Row", "Table", "as_storage", "chain", "connect", "create", "insert"]

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    n INTEGER PRIMARY KEY, now REAL NOT NULL, participant TEXT NOT NULL, signed TEXT NOT NULL, event TEXT NOT NULL,
    chain TEXT NOT NULL
)"""
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT n, now, participant, signed, event, chain FROM events WHERE n = ?"
_encode = json.JSONEncoder(separators=(",", ":")).encode
_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
"""A full disk shows as the first, a full quota or a limit to the size of files as one of the others."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event: its number, when it happened, who caused it with which signed words, and the digest so far."""

    n: int
    now: float
    participant: str
    signed: str
    event: str
    chain: str = ""

    def text(self) -> str:
        """What the digest is over."""
        return _encode((self.n, self.now, self.participant, self.signed, self.event))

    def line(self) -> bytes:
        """The row as plain text."""
        return f"{self.chain} {self.text()}\n".encode()

    def follows(self, n: int, before: str) -> bool:
        """Whether it is row ``n``, unharmed, and comes after the row of digest ``before``."""
        return self.n == n and self.chain == chain(before, self.text())


def chain(before: str, text: str) -> str:
    """The digest of a row over itself and all rows before it."""
    return hashlib.sha256(f"{before} {text}".encode()).hexdigest()


class Copy(Protocol):
    """One of the two places in which rows are kept: ``damaged`` holds what is wrong, ``short`` lacks a row."""

    damaged: bool
    short: bool

    def row(self, n: int) -> Row | None:
        """Row ``n`` as it stands there, if it can be read; ask for one after the other."""
        ...

    def end(self, count: int) -> None:
        """There is no good row after row ``count``: judge what else there is."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Table:
    """The rows in SQLite."""

    def __init__(self, path: Path) -> None:
        self.damaged = self.short = False
        self._db = connect(path) if path.exists() else None

    def row(self, n: int) -> Row | None:
        """Row ``n`` as it stands there, if it can be read."""
        if self._db is None:
            return None
        try:
            found = self._db.execute(_SELECT, (n,)).fetchone()
        except (sqlite3.DatabaseError, UnicodeError):
            self.damaged = True
            return None
        return None if found is None else Row(*found)

    def end(self, count: int) -> None:
        """There is no good row after row ``count``: judge what else there is."""
        if self._db is None:
            return
        try:
            [(rows,)] = self._db.execute("SELECT count(*) FROM events")
            sound = self._db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError:
            rows, sound = 0, False
        # A table that only ends early may have lost its write-ahead log, which does it no harm.
        self.damaged |= not sound or rows > count

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None


class Lines:
    """The rows as lines of text."""

    def __init__(self, path: Path) -> None:
        self.damaged = self.short = False
        self._file = path.open("rb") if path.exists() else None
        self._next: Row | None = None
        self._ended = self._file is None

    def row(self, n: int) -> Row | None:
        """Row ``n`` as it stands there, if it can be read."""
        while not self._ended and (self._next is None or self._next.n < n):
            self._advance()
        return self._next if self._next is not None and self._next.n == n else None

    def end(self, count: int) -> None:
        """There is no good row after row ``count``: judge what else there is."""
        self.row(count + 1)
        self.damaged |= self._next is not None and self._next.n > count

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _advance(self) -> None:
        """On to the next line that can be read."""
        assert self._file is not None
        while line := self._file.readline():
            if (row := _parse(line)) is not None:
                self._next = row
                return
            self.damaged = True
        self._ended = True


def _parse(line: bytes) -> Row | None:
    digest, _, text = line.partition(b" ")
    try:
        n, now, participant, signed, event = json.loads(text)
        row = Row(n, now, participant, signed, event, digest.decode())
        return row if isinstance(n, int) and line == row.line() else None
    except (ValueError, TypeError, RecursionError):
        return None


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose statements are transactions of their own."""
    return sqlite3.connect(path, isolation_level=None)


def create(path: Path) -> sqlite3.Connection:
    """The table, open for appending."""
    db = connect(path)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA wal_autocheckpoint=0")  # it would sync in the middle of a request; Journal.sync does it
        db.execute(_TABLE)
    except sqlite3.OperationalError as error:
        db.close()
        raise as_storage(error) from error
    path.chmod(0o600)
    return db


def insert(db: sqlite3.Connection, row: Row) -> None:
    """Append. Raises StorageFull, and then nothing was written."""
    try:
        db.execute(_INSERT, (row.n, row.now, row.participant, row.signed, row.event, row.chain))
    except sqlite3.OperationalError as error:
        raise as_storage(error) from error


def as_storage(error: sqlite3.OperationalError) -> Exception:
    """StorageFull if that is what it means, or the error itself."""
    if error.sqlite_errorname not in _FULL:
        return error
    return StorageFull(f"the journal: {error}", needed=64 * 1024, hint="make room on the disk; it goes on by itself")
