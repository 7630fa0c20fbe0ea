"""Words: under which words a DDO is found, the same in every store."""

from __future__ import annotations

import re
from typing import Any

from nevermined_fl.assets import dataset_schema, kind, summary

__all__ = ["MAX_WORDS", "searchable", "split"]

MAX_WORDS = 32
_WORD = re.compile(r"[^\W_]+")


def split(text: str) -> list[str]:
    """The words of a text, lower case, at most MAX_WORDS."""
    return [match[0].lower() for match in _WORD.finditer(text[:4096])][:MAX_WORDS]


def searchable(ddo: Any) -> tuple[str, str]:
    """What counts most (name, tags, kind), and the rest (description, author, columns, addresses)."""
    found = summary(ddo)
    columns = [column.name for column in dataset_schema(ddo).columns] if kind(ddo) == "dataset" else []
    title = " ".join([found.name, found.kind, *found.tags])
    return title, " ".join([found.description, found.author, found.creator, found.did, *columns])
