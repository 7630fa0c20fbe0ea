"""Rows sorted by participant: found with few comparisons, put and taken out without sorting anew.

Tuples, never sets or dicts: equal inputs must give equal effects, and the order of arrival leaves no trace.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import Any, Protocol, TypeVar

__all__ = ["find", "has", "put", "put_name", "take"]


class Row(Protocol):
    """What somebody is or said."""

    @property
    def participant(self) -> str:
        """Whose it is; the key."""
        ...


R = TypeVar("R", bound=Row)
_KEY: Any = attrgetter("participant")


def find(rows: tuple[R, ...], participant: str) -> R | None:
    """That participant's row, if there is one."""
    at = bisect_left(rows, participant, key=_KEY)
    return rows[at] if at < len(rows) and rows[at].participant == participant else None


def put(rows: tuple[R, ...], row: R) -> tuple[R, ...]:
    """The rows with this one, in place of its participant's former one."""
    at = bisect_left(rows, row.participant, key=_KEY)
    former = at < len(rows) and rows[at].participant == row.participant
    return (*rows[:at], row, *rows[at + former :])


def take(rows: tuple[R, ...], participant: str) -> tuple[R, ...]:
    """The rows without that participant's."""
    at = bisect_left(rows, participant, key=_KEY)
    former = at < len(rows) and rows[at].participant == participant
    return (*rows[:at], *rows[at + former :])


def has(names: tuple[str, ...], name: str) -> bool:
    """Whether the sorted names hold this one."""
    at = bisect_left(names, name)
    return at < len(names) and names[at] == name


def put_name(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The sorted names with this one, once."""
    at = bisect_left(names, name)
    return names if has(names, name) else (*names[:at], name, *names[at:])
