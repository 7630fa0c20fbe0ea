"""Store: DDOs, their words and service agreements in one SQLite file that survives the death of the process."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.assets import summary
from nevermined_fl.errors import Conflict, NotFound, PermissionDenied
from nevermined_fl.metadata.words import searchable, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["SORTS", "Query", "Results", "Store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ddos (
    n INTEGER PRIMARY KEY AUTOINCREMENT, did TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, creator TEXT NOT NULL,
    name TEXT NOT NULL, created TEXT NOT NULL, price TEXT NOT NULL, published REAL NOT NULL, body TEXT NOT NULL
);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(title, rest);
CREATE TABLE IF NOT EXISTS services (id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS used (id TEXT PRIMARY KEY, expires REAL NOT NULL);
"""
# A price has up to 78 digits: text of equal length sorts as the number does.
SORTS = {"published": "n", "created": "created", "name": "name COLLATE NOCASE", "price": "price"}
_PRICE_DIGITS = 78


@dataclass(frozen=True, slots=True)
class Query:
    """What to find: all words of ``text``, and exactly these kinds, creators and DIDs where given.

    ``sort`` is a column of ``published``, ``created``, ``name``, ``price``, or empty for best first; without text that
    is newest first. Pages count from 1.
    """

    text: str = ""
    kinds: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    dids: tuple[str, ...] = ()
    sort: str = ""
    descending: bool = False
    page: int = 1
    size: int = 100


@dataclass(frozen=True, slots=True)
class Results:
    """One page of DDOs, each as the text of its JSON, and how many there are in all."""

    texts: tuple[str, ...]
    total: int


class Store:
    """The store; safe to share between threads, each of which gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connection().executescript(_SCHEMA)

    def add(self, ddo: Mapping[str, Any]) -> bool:
        """Keep a DDO; False when it is there already.

        Raises:
            Conflict: another one is there under its DID.
        """
        with self._write() as connection:
            if known := connection.execute("SELECT body FROM ddos WHERE did = ?", (ddo["id"],)).fetchone():
                if json.loads(known[0]) != ddo:
                    raise Conflict(f"{ddo['id']} is published with another proof", check="ddo_exists")
                return False
            _insert(connection, ddo)
        return True

    def replace(self, ddo: Mapping[str, Any]) -> None:
        """Put a DDO in the place of the one under its DID. Raises NotFound."""
        with self._write() as connection:
            place, published = _delete(connection, ddo["id"])
            _insert(connection, ddo, place, published)

    def remove(self, did: str) -> None:
        """Forget a DDO. Raises NotFound."""
        with self._write() as connection:
            _delete(connection, did)

    def get(self, did: str) -> dict[str, Any]:
        """The DDO. Raises NotFound."""
        body: dict[str, Any] = json.loads(self._row(did)[0])
        return body

    def published(self, did: str) -> float:
        """When it was published, Unix seconds. Raises NotFound."""
        return float(self._row(did)[1])

    def dids(self, *, page: int, size: int) -> list[str]:
        """DIDs, newest first."""
        rows = self._connection().execute(
            "SELECT did FROM ddos ORDER BY n DESC LIMIT ? OFFSET ?", (size, (page - 1) * size)
        )
        return [did for (did,) in rows]

    def find(self, query: Query) -> Results:
        """DDOs that match all of the query."""
        source, where, values = _condition(query)
        count = f"SELECT count(*) FROM {source} WHERE {where}"  # noqa: S608  texts of _condition, never the caller's
        (total,) = self._connection().execute(count, values).fetchone()
        page = (query.size, (query.page - 1) * query.size)
        order = _order(query)
        found = f"SELECT body FROM {source} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608  as above
        return Results(tuple(text for (text,) in self._connection().execute(found, (*values, *page))), total)

    # --- service agreements, which the SDK leaves here, and logins

    def add_service(self, agreement: str, owner: str, body: Mapping[str, Any]) -> None:
        """Keep a service agreement. Raises PermissionDenied when it is somebody else's."""
        with self._write() as connection:
            known = connection.execute("SELECT owner FROM services WHERE id = ?", (agreement,)).fetchone()
            if known and known[0] != owner:
                raise PermissionDenied(f"{agreement} was left here by somebody else", check="owner")
            connection.execute("INSERT OR REPLACE INTO services VALUES (?, ?, ?)", (agreement, owner, json.dumps(body)))

    def service(self, agreement: str) -> dict[str, Any]:
        """A service agreement. Raises NotFound."""
        row = self._connection().execute("SELECT body FROM services WHERE id = ?", (agreement,)).fetchone()
        if row is None:
            raise NotFound(f"no service agreement {agreement:.80}", check="service_exists")
        body: dict[str, Any] = json.loads(row[0])
        return body

    def use_once(self, token: str, expires: float, now: float) -> bool:
        """Whether this is the first use of a token that expires; forgets the expired ones."""
        with self._write() as connection:
            connection.execute("DELETE FROM used WHERE expires < ?", (now,))
            return connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (token, expires)).rowcount == 1

    def close(self) -> None:
        """Close this thread's connection."""
        if connection := getattr(self._local, "connection", None):
            connection.close()
            del self._local.connection

    # --- SQLite

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            # isolation_level None: transactions begin where _write says so.
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
        found: sqlite3.Connection = self._local.connection
        return found

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _row(self, did: str) -> tuple[str, float]:
        row = self._connection().execute("SELECT body, published FROM ddos WHERE did = ?", (did,)).fetchone()
        if row is None:
            raise NotFound(f"no DDO of {did:.80}", check="ddo_exists")
        return row[0], row[1]


def _insert(
    connection: sqlite3.Connection, ddo: Mapping[str, Any], place: int | None = None, published: float | None = None
) -> None:
    about = summary(ddo)
    values = {
        "n": place,
        "did": about.did,
        "kind": about.kind,
        "creator": about.creator.lower(),
        "name": about.name,
        "created": about.created,
        "price": str(about.price).zfill(_PRICE_DIGITS),
        "published": time.time() if published is None else published,
        "body": json.dumps(ddo),
    }
    cursor = connection.execute(
        "INSERT INTO ddos VALUES (:n, :did, :kind, :creator, :name, :created, :price, :published, :body)", values
    )
    connection.execute("INSERT INTO words (rowid, title, rest) VALUES (?, ?, ?)", (cursor.lastrowid, *searchable(ddo)))


def _delete(connection: sqlite3.Connection, did: str) -> tuple[int, float]:
    row = connection.execute("DELETE FROM ddos WHERE did = ? RETURNING n, published", (did,)).fetchone()
    if row is None:
        raise NotFound(f"no DDO of {did:.80}", check="ddo_exists")
    connection.execute("DELETE FROM words WHERE rowid = ?", row[:1])
    return row[0], row[1]


def _condition(query: Query) -> tuple[str, str, list[str]]:
    """Tables, condition and its values. All text stands in parameters, each word in quotes of FTS5."""
    source, conditions, values = "ddos", ["1"], []
    if words := split(query.text):
        source = "words JOIN ddos ON ddos.n = words.rowid"
        conditions.append("words MATCH ?")
        values.append(" ".join(f'"{word}"*' for word in words))
    for column, allowed in (("kind", query.kinds), ("creator", query.creators), ("did", query.dids)):
        if allowed:
            conditions.append(f"{column} IN ({', '.join('?' * len(allowed))})")
            values += [value.lower() for value in allowed]
    return source, " AND ".join(conditions), values


def _order(query: Query) -> str:
    if query.sort:
        return f"{SORTS[query.sort]} {'DESC' if query.descending else 'ASC'}, n DESC"
    # A word of the name, the tags or the kind counts ten of the rest.
    return "bm25(words, 10.0, 1.0), n DESC" if split(query.text) else "n DESC"
