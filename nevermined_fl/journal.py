"""The journal: what happened to a session, written before anything is done about it.

Rule 1: a row is never changed. Rule 2: replaying the rows in order gives the session again, so effects run after the
append. Durable means: survives the death of any process (SQLite WAL without a sync per row); power loss may cost the
newest rows.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import LocalProtocolError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Journal"]

_TABLES = """
CREATE TABLE IF NOT EXISTS events (n INTEGER PRIMARY KEY, now REAL NOT NULL, event TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS proofs (n INTEGER PRIMARY KEY, participant TEXT NOT NULL, signed TEXT NOT NULL);
"""


class Journal:
    """Numbered events from 1 on; row 1 says how the session was started."""

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            SettingsError: the file is there but is no journal.
        """
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise SettingsError(f"{path} is not a journal: {error}") from error
        path.chmod(0o600)

    def append(self, now: float, event: Mapping[str, Any], *, participant: str = "", signed: str = "") -> int:
        """Write one event; returns its number.

        Args:
            now: when it happened, Unix seconds.
            event: its JSON form.
            participant: who caused it.
            signed: the participant's own signed words that caused it, kept as proof.
        """
        text = json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            row = self._db.execute("INSERT INTO events (now, event) VALUES (?, ?)", (now, text)).lastrowid
            if signed:
                self._db.execute("INSERT INTO proofs VALUES (?, ?, ?)", (row, participant, signed))
        if row is None:
            raise LocalProtocolError("the journal gave an event no number")
        return row

    def replay(self) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """Every event in order: number, time, JSON form."""
        for number, now, text in self._db.execute("SELECT n, now, event FROM events ORDER BY n"):
            yield number, now, json.loads(text)

    def proofs(self) -> Iterator[tuple[int, str, str]]:
        """Signed words in order: number of the event, participant, JWS."""
        yield from self._db.execute("SELECT n, participant, signed FROM proofs ORDER BY n")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
