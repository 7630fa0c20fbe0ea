"""How deep may Python recurse here?

``eth`` and ``py_ecc``, which web3 and eth_keyfile import, raise the limit to 100 000 frames: more than the stack holds. JSON that is nested
deeply enough then kills the process where it should raise RecursionError, and every server of ours reads JSON from strangers.
"""

from __future__ import annotations

import sys

__all__ = ["SAFE", "bound"]

SAFE = 3000
"""Frames that a thread's 8 MiB stack holds with room to spare; notebooks set as much."""


def bound() -> None:
    """Take back what an import raised. Call it after importing any of those libraries."""
    sys.setrecursionlimit(min(sys.getrecursionlimit(), SAFE))
