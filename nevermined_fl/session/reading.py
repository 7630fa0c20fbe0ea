"""Reading: is what came a number, a text, a list or an object, and within its bounds?

Each check takes the parameter's name and what came, and raises InvalidRequest, which says both.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from nevermined_fl.errors import InvalidRequest
from nevermined_fl.session.wording import shown

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

__all__ = [
    "integer",
    "json_bytes",
    "json_list",
    "json_object",
    "json_row",
    "matching",
    "number",
    "one_of",
    "or_none",
    "positive",
    "refuse",
    "text",
    "unique",
]


def refuse(name: str, expected: str, got: Any) -> NoReturn:
    """Raise InvalidRequest: the parameter, what was expected and what came, cut short."""
    # A hostile integer may have more digits than Python agrees to print.
    plain = isinstance(got, str | float) or (isinstance(got, int) and abs(got) < 10**30)
    came = str(got) if plain or got is None else type(got).__name__
    raise InvalidRequest(f"{name}: expected {expected}, got {shown(came)}", check="plan")


def integer(low: int, high: int, name: str, value: Any) -> int:
    """An integer of that range, and no bool."""
    if type(value) is not int or not low <= value <= high:
        refuse(name, f"an integer {low} to {high}", value)
    return value


def number(name: str, value: Any, low: float = -1e300, high: float = 1e300) -> float:
    """A finite number of that range, and no bool, as a float."""
    # The comparison refuses NaN and infinities too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        refuse(name, f"a number {low:g} to {high:g}", value)
    return float(value)


def positive(high: float, name: str, value: Any) -> float:
    """A number above 0."""
    found = number(name, value, 0.0, high)
    if found == 0:
        refuse(name, f"a number above 0, at most {high:g}", value)
    return found


def text(name: str, value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        refuse(name, "text", value)
    return value


def matching(pattern: re.Pattern[str], name: str, value: Any) -> str:
    """Text that matches as a whole."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        refuse(name, f"text like {pattern.pattern}", value)
    return value


def one_of(words: tuple[str, ...], name: str, value: Any) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in words:
        refuse(name, f"one of {', '.join(words)}", value)
    return value


def or_none(read: Callable[[str, Any], Any], name: str, value: Any) -> Any:
    """None, or what ``read`` makes of it."""
    return None if value is None else read(name, value)


def json_object(name: str, value: Any) -> dict[str, Any]:
    """A dict whose keys are texts."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        refuse(name, "a JSON object", value)
    return value


def json_row(name: str, value: Any, required: set[str], optional: set[str]) -> dict[str, Any]:
    """An object that has these names and no others."""
    row = json_object(name, value)
    if not required <= set(row) <= required | optional:
        refuse(name, f"an object with {', '.join(sorted(required | optional))}", ", ".join(sorted(row)))
    return row


def json_list(name: str, value: Any, low: int, high: int) -> list[Any] | tuple[Any, ...]:
    """A list or tuple of that length."""
    if not isinstance(value, list | tuple) or not low <= len(value) <= high:
        got = f"{len(value)} of them" if isinstance(value, list | tuple) else value
        refuse(name, f"a list of {low} to {high}", got)
    return value


def unique(name: str, names: list[str]) -> None:
    """Refuse a name that stands there twice."""
    seen: set[str] = set()
    for item in names:
        if item in seen:
            refuse(name, "each name once", f"{item} twice")
        seen.add(item)


def json_bytes(name: str, value: Any) -> bytes:
    """It as JSON, if it is some; numbers are finite and texts have no half of a surrogate pair."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name}: expected JSON with finite numbers, got {error}"[:200], check="plan") from error
