"""Approvals: which algorithms, by the digest of their file, a provider lets run on its data. None, until it says so."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nevermined_fl.errors import NotFound
from nevermined_fl.launcher.database import Database

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

__all__ = ["Approval", "Approvals"]

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Approval:
    """What a provider thinks of an algorithm: ``pending``, ``approved`` or ``revoked``.

    ``digest`` is that of the Trainer's file. ``initial_model`` is the digest of the model that training starts from: it
    is shown, but its bytes are data and never run here.
    """

    digest: str
    state: str
    algorithm: str
    initial_model: str
    workflow: str
    requested_by: str
    requested: float
    decided: float | None


class Approvals:
    """The provider's decisions in ``path``; the command line writes while the launcher reads."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)

    def is_approved(self, digest: str) -> bool:
        """Whether this very file may run."""
        return any(row.state == "approved" for row in self._find(digest))

    def request(
        self, digest: str, *, algorithm: str = "", initial_model: str = "", workflow: str = "", requested_by: str = ""
    ) -> Approval:
        """Put an algorithm before the provider; a decision that was taken stands."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO approvals VALUES (?, 'pending', ?, ?, ?, ?, ?, NULL)",
                (digest, algorithm, initial_model, workflow, requested_by, time.time()),
            )
        return self._find(digest)[0]

    def approve(self, name: str) -> Approval:
        """Allow an algorithm, named by its file's digest or, after a request, by its DID.

        Raises:
            NotFound: nobody asked for this DID.
        """
        return self._decide(name, "approved")

    def revoke(self, name: str) -> Approval:
        """Forbid it from now on; a job that runs already is stopped by ``stop``, not by this."""
        return self._decide(name, "revoked")

    def list(self) -> tuple[Approval, ...]:
        """All, newest request first."""
        return tuple(map(_approval, self._database.read("SELECT * FROM approvals ORDER BY requested DESC")))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _decide(self, name: str, state: str) -> Approval:
        found = self._find(name)
        match = _DIGEST.fullmatch(name)
        if not found and match:
            found = (self.request(f"sha256:{match[1]}"),)
        if not found:
            raise NotFound(f"nobody asked for a review of {name}", check="review_exists", hint="name the file's digest")
        with self._database.write() as connection:
            for each in found:
                change = (state, time.time(), each.digest)
                connection.execute("UPDATE approvals SET state = ?, decided = ? WHERE digest = ?", change)
        return self._find(found[0].digest)[0]

    def _find(self, name: str) -> tuple[Approval, ...]:
        match = _DIGEST.fullmatch(name)
        if match:
            rows = self._database.read("SELECT * FROM approvals WHERE digest = ?", f"sha256:{match[1]}")
        else:
            rows = self._database.read("SELECT * FROM approvals WHERE algorithm = ? ORDER BY requested DESC", name)
        return tuple(map(_approval, rows))


def _approval(row: sqlite3.Row) -> Approval:
    return Approval(**{name: row[name] for name in row.keys()})  # noqa: SIM118  a Row iterates over values
