"""Memory: DDOs kept in a dict, for tests and simulations, by the rules of the real store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import Conflict, NotFound
from nevermined_fl.metadata.identity import certify
from nevermined_fl.metadata.words import searchable, split

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MemoryMetadata"]


class MemoryMetadata:
    """``ports.Metadata`` in memory."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def publish(self, ddo: Mapping[str, Any]) -> None:
        """As ``ports.Metadata.publish``."""
        body = certify(ddo)
        if json.loads(self._texts.setdefault(body["id"], json.dumps(body))) != body:
            raise Conflict(f"{body['id']} is published with another proof", check="ddo_exists")

    def resolve(self, did: str) -> dict[str, Any]:
        """As ``ports.Metadata.resolve``."""
        if did not in self._texts:
            raise NotFound(f"no DDO of {did:.80}", check="ddo_exists")
        body: dict[str, Any] = json.loads(self._texts[did])
        return body

    def search(self, text: str, *, page: int = 1, size: int = 100) -> list[dict[str, Any]]:
        """As ``ports.Metadata.search``: all words must occur, each as the beginning of one."""
        words = split(text)
        ranked = sorted(((_rank(body, words), body) for body in self._newest()), key=lambda pair: -pair[0])
        found = [body for rank, body in ranked if rank]
        return found[(page - 1) * size : page * size]

    def _newest(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in reversed(self._texts.values())]


def _rank(ddo: dict[str, Any], words: list[str]) -> int:
    """0 when a word is missing; a word of the title counts ten of the rest."""
    title, rest = (split(text) for text in searchable(ddo))
    counts = [_count(title, word) * 10 + _count(rest, word) for word in words]
    return 0 if 0 in counts else 1 + sum(counts)


def _count(words: list[str], beginning: str) -> int:
    return sum(word.startswith(beginning) for word in words)
