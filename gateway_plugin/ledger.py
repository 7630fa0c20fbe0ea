"""Ledger: what a gateway must remember across restarts, in ``gateway.sqlite`` of the provider's data folder.

Two things: which assertions were used (until they expire, so that none is used twice) and which buyer brought which
upload (so that quotas hold, and nobody downloads a file through a DID of his own that names another's digest).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from nevermined_fl.errors import Conflict, Unauthenticated
from nevermined_fl.launcher.database import room_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Ledger"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS assertions (digest TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS assertions_by_expiry ON assertions (expires);
CREATE TABLE IF NOT EXISTS uploads (
    sha256 TEXT NOT NULL, buyer TEXT NOT NULL, size INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (buyer, sha256)
) WITHOUT ROWID;
"""


class Ledger:
    """Opens a connection per use: waitress's threads share nothing but the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
        path.chmod(0o600)

    def use_assertion(self, digest: str, *, expires: float, now: float) -> None:
        """Note that an assertion is used up.

        Raises:
            Unauthenticated: it was used before.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM assertions WHERE expires <= ?", (now,))
            try:
                connection.execute("INSERT INTO assertions VALUES (?, ?)", (digest, expires))
            except sqlite3.IntegrityError as error:
                raise Unauthenticated(
                    "this assertion was used before", check="assertion_unused", hint="sign a new one for each token"
                ) from error

    def has_upload(self, buyer: str, sha256: str) -> bool:
        """Whether this buyer brought that content."""
        with closing(self._connect()) as connection:
            found = connection.execute(
                "SELECT 1 FROM uploads WHERE buyer = ? AND sha256 = ?", (buyer, sha256)
            ).fetchone()
        return found is not None

    @contextmanager
    def upload(self, buyer: str, sha256: str, *, size: int, quota: int, now: float) -> Iterator[bool]:
        """Note an upload when the block ends well; yields whether it is new. The block puts the file in its place.

        Raises:
            Conflict: the buyer's quota is used up. Checked in the transaction: parallel uploads cannot exceed it.
        """
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM uploads WHERE buyer = ? AND sha256 = ?", (buyer, sha256)).fetchone():
                yield False
                return
            query = "SELECT COALESCE(SUM(size), 0) FROM uploads WHERE buyer = ?"
            kept = int(connection.execute(query, (buyer,)).fetchone()[0])
            if kept + size > quota:
                raise Conflict(
                    f"{kept} bytes of yours are kept here; {size} more would exceed {quota}",
                    check="upload_quota",
                    hint="use another gateway, or ask the provider for a larger max_buyer_uploads",
                )
            yield True
            connection.execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", (sha256, buyer, size, now))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(self._connect()) as connection, room_in(self._path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk may have rolled it back already
                    connection.execute("ROLLBACK")
                raise
