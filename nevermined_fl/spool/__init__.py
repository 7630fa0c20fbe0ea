"""The spool: updates on disk, from the first byte to the digest that names them.

``spool`` knows whose update is where, ``sink`` takes one in, ``inspection`` looks at its numbers while they come.

Rule 1: a file of another size than the plan's schema makes is refused before a byte of it is stored. Rule 2: a file
without ``.part`` was verified whole: digest, header, every number finite, no scale below 0. A participant has at most one update per round
on disk; a new one drops the old.
"""

from __future__ import annotations

from nevermined_fl.spool.inspection import Inspection, check_finite, check_header, scan
from nevermined_fl.spool.sink import Sink
from nevermined_fl.spool.spool import Spool

__all__ = ["Inspection", "Sink", "Spool", "check_finite", "check_header", "scan"]
