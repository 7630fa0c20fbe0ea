"""Which types a placeholder can have, and which values belong to each.

Every check takes any Python value and answers without raising: values come from strangers' documents.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TYPES", "matches"]

MAX_ITEMS = 10_000
_BIGGEST = 2**63 - 1
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,256}")
_TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]{0,4096}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
# No blanks, user names, queries or fragments: nothing may hide in an address that others will dial.
_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}(/[A-Za-z0-9._~:\-/%]{0,1024})?")
_DID = re.compile(r"did:nv:[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_AMOUNT = re.compile(r"0|[1-9][0-9]{0,77}")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64})?")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


def _string(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _list_of(check: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and least <= len(value) <= MAX_ITEMS and all(map(check, value))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _BIGGEST


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= _BIGGEST


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool) or _is_number(value) or _string(_TEXT)(value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(_string(_NAME)(k) and _is_number(v) for k, v in value.items())


def _is_table(value: Any) -> bool:
    if not isinstance(value, dict) or not _list_of(_string(_NAME))(value.get("columns")):
        return False
    width = len(value["columns"])
    row = _list_of(_is_scalar)
    return _list_of(lambda item: row(item) and len(item) == width)(value.get("rows"))


def _is_parameters(value: Any) -> bool:
    # The three of the Nevermined FL specification, and our engine; the rest belongs to the engine.
    return (
        isinstance(value, dict)
        and _is_count(value.get("minParticipants"))
        and _is_count(value.get("rounds"))
        and _is_number(value.get("participantsRatio"))
        and _string(_NAME)(value.get("engine"))
    )


TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_string(_NAME), "a line of 1 to 256 characters"),
    "text": (_string(_TEXT), "text of at most 4096 characters"),
    "texts": (_list_of(_string(_NAME)), "a list of lines of 1 to 256 characters"),
    "time": (_string(_TIME), "a time like 2026-01-31T12:00:00Z"),
    "url": (_string(_URL), "an http(s) URL without user, query and fragment"),
    "did": (_string(_DID), "a DID, did:nv:<64 hex>"),
    "dids": (_list_of(_string(_DID), 1), "a list of at least one DID, did:nv:<64 hex>"),
    "address": (_string(_ADDRESS), "an address, 0x<40 hex>"),
    "addresses": (_list_of(_string(_ADDRESS), 1), "a list of at least one address, 0x<40 hex>"),
    "amount": (_string(_AMOUNT), "a whole number in decimal digits, as a string"),
    "amounts": (_list_of(_string(_AMOUNT), 1), "a list of at least one whole number in decimal digits, as strings"),
    "length": (_string(_LENGTH), "a number of bytes in decimal digits, as a string"),
    "count": (_is_count, "a whole number of at least 0"),
    "number": (_is_number, "a finite number"),
    "numbers": (_is_numbers, "an object of finite numbers"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "sha256": (_string(_SHA256), "64 hex digits"),
    "digest": (_string(_DIGEST), "sha256:<64 hex>, or nothing"),
    "file": (_string(_FILE), "a plain file name"),
    "table": (_is_table, "a table {columns: [names], rows: [lists of scalars, one per column]}"),
    "parameters": (_is_parameters, "an object with engine, minParticipants, participantsRatio and rounds"),
}


def matches(kind: str, value: Any) -> bool:
    """Whether ``value`` belongs to the type ``kind``."""
    return TYPES[kind][0](value)
