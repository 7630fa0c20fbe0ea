"""Database: ``provider.sqlite``, shared by the launcher and the provider's command line."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Database", "room_in"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, agreement TEXT NOT NULL, session TEXT NOT NULL, spec TEXT NOT NULL,
    stage TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
    attempts INTEGER NOT NULL, stopping INTEGER NOT NULL, port INTEGER, isolation TEXT NOT NULL, exit_code INTEGER,
    model TEXT NOT NULL, payment TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_live_execution ON jobs (agreement) WHERE finished IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS one_live_session ON jobs (session) WHERE finished IS NULL AND kind = 'coordinator';
CREATE UNIQUE INDEX IF NOT EXISTS one_port ON jobs (port) WHERE finished IS NULL AND port IS NOT NULL;
CREATE TABLE IF NOT EXISTS records (session TEXT PRIMARY KEY, seq INTEGER NOT NULL, jws TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seen (session TEXT PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS admissions (
    job TEXT NOT NULL, participant TEXT NOT NULL, agreement TEXT NOT NULL, UNIQUE (job, participant, agreement)
);
CREATE TABLE IF NOT EXISTS approvals (
    digest TEXT PRIMARY KEY, state TEXT NOT NULL, algorithm TEXT NOT NULL, initial_model TEXT NOT NULL,
    workflow TEXT NOT NULL, requested_by TEXT NOT NULL, requested REAL NOT NULL, decided REAL
);
"""


class Database:
    """One connection, used by several threads one at a time; other processes may write in between.

    WAL with ``synchronous = NORMAL``: what is committed survives the death of any process.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block or nothing.

        Raises:
            StorageFull: the disk has no room for it.
        """
        with self._lock, room_in(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have rolled it back already
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def room_in(path: Path) -> Iterator[None]:
    """Say StorageFull when SQLite finds no room for what the block writes."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        raise StorageFull(f"{path.name}: {error}", hint="make room on the disk; it goes on by itself") from error
