"""Logs: one record, one line, whatever strangers put into it.

Paths, DIDs and messages of peers stand in our servers' logs. A line break in one of them would be a line of the log that
we never wrote, and an escape sequence would steer the terminal of whoever reads it.
"""

from __future__ import annotations

import logging

__all__ = ["configure"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class _OneLine(logging.Formatter):
    """Tracebacks, which we ask for, keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the base class's name
        return super().formatMessage(record).translate(_CONTROLS)


def configure(level: str = "INFO") -> None:
    """Log to stderr from now on, for a program's ``main``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
