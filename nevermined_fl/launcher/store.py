"""Store: the launcher's jobs, and the last session record of each session, as they survive a restart."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import Conflict, NotFound
from nevermined_fl.launcher.database import Database
from nevermined_fl.launcher.order import Order

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STAGES", "Job", "Store"]

STAGES = ("preparing", "waiting", "running", "publishing", "settling", "over")
_CONFLICTS = {
    "jobs.agreement": ("one_live_execution", "this agreement has a live execution"),
    "jobs.session": ("one_live_session", "this session has a live coordinator"),
    "jobs.port": ("port_free", "this port is another coordinator's"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One execution. ``status`` is Argo's word, ``stage`` ours; ``payment`` is what the chain last said of the agreement.

    Times are Unix seconds. ``stopping``: the buyer asked for its end. ``finished`` is None as long as it is live.
    """

    id: str
    order: Order
    created: float
    stage: str = "preparing"
    status: str = "Pending"
    reason: str = ""
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    stopping: bool = False
    port: int | None = None
    isolation: str = ""
    exit_code: int | None = None
    model: str = ""
    payment: str = ""


_CHANGEABLE = frozenset(f.name for f in fields(Job)) - {"id", "order", "created"}


class Store:
    """The tables of ``path``; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    def add(self, job: Job, *, ended: int | None = None) -> None:
        """Keep a new job, if as many executions of its agreement have ended as when its caller looked.

        Raises:
            Conflict: the agreement or the session has a live one, or one of the agreement's ended meanwhile.
        """
        values = {name: getattr(job, name) for name in _CHANGEABLE} | {
            "id": job.id,
            "created": job.created,
            "kind": job.order.kind,
            "agreement": job.order.agreement,
            "session": job.order.session,
            "spec": job.order.to_json(),
        }
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        unchanged = "(SELECT count(*) FROM jobs WHERE agreement = ? AND finished IS NOT NULL)"
        statement = f"INSERT INTO jobs ({columns}) SELECT {marks} WHERE ? IN ({unchanged}, -1)"
        known = -1 if ended is None else ended
        try:
            added = self._execute(statement, *values.values(), known, job.order.agreement)
        except Conflict as conflict:
            # A coordinator that is ordered twice is both; its buyer, who lost our answer, asks for the execution alone.
            if all(other.finished is not None for other in self.of_agreement(job.order.agreement)):
                raise
            check, message = _CONFLICTS["jobs.agreement"]
            raise Conflict(message, check=check) from conflict
        if not added:
            raise Conflict("an execution of this agreement has just ended", check="one_live_execution")

    def change(self, job_id: str, **changes: Any) -> Job:
        """Change some fields; returns the job as it is now."""
        assert set(changes) <= _CHANGEABLE
        columns = ", ".join(f"{name} = ?" for name in changes)
        self._execute(f"UPDATE jobs SET {columns} WHERE id = ?", *changes.values(), job_id)  # noqa: S608  our own names
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFound: there is none.
        """
        rows = self._database.read("SELECT * FROM jobs WHERE id = ?", job_id)
        if not rows:
            raise NotFound(f"no execution {job_id[:80]} here", check="execution_exists")
        return _job(rows[0])

    def all(self) -> tuple[Job, ...]:
        """Every job, oldest first."""
        return tuple(map(_job, self._database.read("SELECT * FROM jobs ORDER BY created")))

    def live(self) -> tuple[Job, ...]:
        """The jobs that are not over, oldest first."""
        return tuple(map(_job, self._database.read("SELECT * FROM jobs WHERE finished IS NULL ORDER BY created")))

    def of_agreement(self, agreement: str) -> tuple[Job, ...]:
        """The executions of an agreement, oldest first."""
        rows = self._database.read("SELECT * FROM jobs WHERE agreement = ? ORDER BY created", agreement)
        return tuple(map(_job, rows))

    def record(self, session: str) -> tuple[int, str] | None:
        """Number and text of the last record that we issued."""
        rows = self._database.read("SELECT seq, jws FROM records WHERE session = ?", session)
        return (rows[0]["seq"], rows[0]["jws"]) if rows else None

    def keep_record(self, session: str, seq: int, jws: str) -> None:
        """Keep a record that we issue."""
        self._execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", session, seq, jws)

    def seen(self, session: str) -> int | None:
        """Number of the last record that we verified."""
        rows = self._database.read("SELECT seq FROM seen WHERE session = ?", session)
        return rows[0]["seq"] if rows else None

    def keep_seen(self, session: str, seq: int) -> None:
        """Remember that we verified a record, so that an older one is never believed again."""
        upsert = "INSERT INTO seen VALUES (?, ?) ON CONFLICT (session) DO UPDATE SET seq = max(seq, excluded.seq)"
        self._execute(upsert, session, seq)

    def admit(self, job_id: str, participant: str, agreement: str) -> None:
        """Remember whom the coordinator let in."""
        self._execute("INSERT OR IGNORE INTO admissions VALUES (?, ?, ?)", job_id, participant, agreement)

    def admitted(self, job_id: str) -> frozenset[tuple[str, str]]:
        """Dataset DID and agreement of everybody who was let in."""
        rows = self._database.read("SELECT participant, agreement FROM admissions WHERE job = ?", job_id)
        return frozenset((row["participant"], row["agreement"]) for row in rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _execute(self, statement: str, *values: Any) -> int:
        """How many rows were written."""
        try:
            with self._database.write() as connection:
                return connection.execute(statement, values).rowcount
        except sqlite3.IntegrityError as error:
            column = str(error).rpartition(" ")[2]
            if column not in _CONFLICTS:
                raise
            check, message = _CONFLICTS[column]
            raise Conflict(message, check=check) from error


def _job(row: sqlite3.Row) -> Job:
    values = {name: row[name] for name in _CHANGEABLE} | {"id": row["id"], "created": row["created"]}
    return Job(order=Order.from_json(row["spec"]), **values | {"stopping": bool(row["stopping"])})
