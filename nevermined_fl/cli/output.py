"""What does a command say: one JSON object on stdout for programs, or tables and sentences for people?

Rule 1: progress goes to stderr, always. Rule 2: with ``--json`` stdout gets exactly one object, also when it fails.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nevermined_fl.marketplace.quote import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Output", "plain", "tokens"]


_PIPE_WIDTH = 240
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Output:
    """Where one command talks to."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._people = Console(highlight=False)
        if not self._people.is_terminal:
            # A pipe has no width, and DIDs must come through whole.
            self._people.width = _PIPE_WIDTH
        self._progress = Console(stderr=True, soft_wrap=True, highlight=False)

    def progress(self, text: str) -> None:
        """A line about what is going on."""
        self._progress.print(_shown(text), style="dim", markup=False)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner while the block runs, where stderr is a terminal."""
        if self._progress.is_terminal:
            with self._progress.status(text):
                yield
        else:
            self.progress(text)
            yield

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table for people."""
        if self.as_json:
            return
        table = Table(
            title=Text(_shown(title)) if title else None, title_justify="left", title_style="bold", header_style="bold"
        )
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else _shown(str(cell))) for cell in row))
        self._people.print(table)

    def say(self, text: str) -> None:
        """A sentence for people."""
        if not self.as_json:
            self._people.print(_shown(text), markup=False, soft_wrap=True)

    def result(self, body: Mapping[str, Any]) -> None:
        """The one object for programs; call it once, at the end."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(body)) + "\n")
            sys.stdout.flush()

    def error(self, kind: str, message: str, *, hint: str = "", check: str = "") -> None:
        """Why it failed."""
        body = {"error": kind, "check": check, "message": message, "hint": hint}
        if self.as_json:
            self.result({key: value for key, value in body.items() if value or key in {"error", "message", "hint"}})
            return
        said = f"error: {message}" + (f" [{check}]" if check else "")
        self._progress.print(_shown(said), style="red", markup=False)
        if hint:
            self._progress.print(_shown(f"hint: {hint}"), markup=False)


def _shown(text: str) -> str:
    """Text as a terminal may have it: strangers write DDOs, and algorithms print; neither may steer a terminal."""
    return text.translate(_CONTROLS)


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
