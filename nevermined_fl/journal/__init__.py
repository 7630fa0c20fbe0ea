"""The journal: what happened to a session, written before anything is done about it.

``writing`` appends and replays, ``rows`` says what a row is and reads the two copies, ``mending`` makes each of them whole
from the other. Decision 0012 says what is durable when.
"""

from __future__ import annotations

from nevermined_fl.journal.writing import Journal

__all__ = ["Journal"]
