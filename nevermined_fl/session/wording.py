"""Wording: what came from outside, made fit to stand in a message."""

from __future__ import annotations

__all__ = ["shown"]


def shown(text: str) -> str:
    """At most 80 characters of it in printable ASCII: no lone surrogate, which no UTF-8 can hold, and no line break."""
    return ascii(text[:80])[1:-1][:80]
