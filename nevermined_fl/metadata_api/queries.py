"""Queries: what a search may say in its URL or in its body."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import workflows
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.metadata_api.store import SORTS, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["page_of", "query_of"]

MAX_SIZE = 100
_MOST_VALUES = 100
_DIGITS = re.compile(r"[0-9]{1,9}")
_FILTERS = {"text", "type", "creator", "did"}


def page_of(values: Mapping[str, Any]) -> tuple[int, int]:
    """Page, from 1, and its size: upstream calls that ``offset``."""
    page, size = _count(values, "page", 1), _count(values, "offset", MAX_SIZE)
    if page < 1 or size < 1:
        raise InvalidRequest("page and offset count from 1", check="query")
    return page, min(size, MAX_SIZE)


def query_of(values: Mapping[str, Any]) -> Query:
    """A query of ``{query: {text, type, creator, did}, sort, offset, page}``.

    Raises:
        InvalidRequest: something else is in it, or a value of the wrong type; ``check`` is ``query``.
    """
    wanted = values.get("query", {})
    if not isinstance(wanted, dict) or set(wanted) - _FILTERS:
        raise InvalidRequest(f"query should be an object of {', '.join(sorted(_FILTERS))}", check="query")
    kinds = _texts(wanted, "type")
    if unknown := set(kinds) - set(workflows.names()):
        raise InvalidRequest(f"there is no type {min(unknown)!r:.80}", check="query")
    page, size = page_of(values)
    sort, descending = _sort(values.get("sort"))
    return Query(
        text=" ".join(_texts(wanted, "text")),
        kinds=kinds,
        creators=_texts(wanted, "creator"),
        dids=_texts(wanted, "did"),
        sort=sort,
        descending=descending,
        page=page,
        size=size,
    )


def _count(values: Mapping[str, Any], name: str, default: int) -> int:
    found = values.get(name)
    found = default if found is None or found == "" else found
    if isinstance(found, str) and _DIGITS.fullmatch(found):
        return int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 10**9:
        raise InvalidRequest(f"{name} should be a whole number", check="query")
    return found


def _texts(wanted: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = wanted.get(name, [])
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or len(found) > _MOST_VALUES or not all(isinstance(item, str) for item in found):
        raise InvalidRequest(f"query.{name} should be a text or a list of at most {_MOST_VALUES}", check="query")
    return tuple(found)


def _sort(found: Any) -> tuple[str, bool]:
    """``{"column": 1}`` ascending, ``-1`` descending; in a URL the same as JSON."""
    if isinstance(found, str) and found:
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("sort should be JSON", check="query") from error
    if found is None or found in ("", {}):
        return "", False
    pairs = list(found.items()) if isinstance(found, dict) else []
    if len(pairs) != 1 or pairs[0][0] not in SORTS or pairs[0][1] not in (1, -1) or isinstance(pairs[0][1], bool):
        raise InvalidRequest(f"sort should be one of {', '.join(SORTS)} with 1 or -1", check="query")
    return pairs[0][0], pairs[0][1] == -1
