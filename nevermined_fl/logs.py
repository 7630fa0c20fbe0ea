"""Logs: one record, one line, whatever strangers put into it, and about which session, round and participant.

Paths, DIDs and messages of peers stand in our servers' logs. A line break in one of them would be a line of the log that
we never wrote, and an escape sequence would steer the terminal of whoever reads it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

__all__ = ["CONTEXT", "bind", "configure", "environment"]

_VARIABLE = "NEVERMINED_FL_LOG"

CONTEXT = ("session", "round", "participant")
"""What a record may carry as ``extra``; printed after the message as ``session=…``."""

_bound: dict[str, Any] = {}

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class _OneLine(logging.Formatter):
    """Tracebacks, which we ask for, keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class's name
        words = [f" {name}={value}" for name, value in _context(record).items()]
        return "".join((super().formatMessage(record), *words)).translate(_CONTROLS)


class _Json(logging.Formatter):
    """One JSON object a line, for programs; a traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        body: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body | _context(record))  # escapes whatever is not plain ASCII


def configure(level: str = "INFO") -> None:
    """Log to stderr from now on, for a program's ``main``; as JSON if ``NEVERMINED_FL_LOG`` says ``json``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if os.environ.get(_VARIABLE) == "json" else _OneLine(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def environment() -> dict[str, str]:
    """What a program that this one starts must find in its environment to log as this one does."""
    return {_VARIABLE: os.environ[_VARIABLE]} if _VARIABLE in os.environ else {}


def bind(**context: Any) -> None:
    """Say what every line of this process is about that does not say it itself; for a process that has one session."""
    _bound.update(context)


def _context(record: logging.LogRecord) -> dict[str, Any]:
    found = ((name, getattr(record, name, _bound.get(name))) for name in CONTEXT)
    return {name: value for name, value in found if value is not None and value != ""}
