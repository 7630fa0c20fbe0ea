"""Mending: two copies of the rows, of which either may be damaged or short, are made whole from each other."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from nevermined_fl.files import atomic_file, size_of, storage
from nevermined_fl.journal.rows import Lines, Table, create, insert

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nevermined_fl.journal.rows import Copy, Row

__all__ = ["mend"]

logger = logging.getLogger(__name__)


def mend(table: Path, lines: Path) -> tuple[int, str]:
    """Make both copies hold every row that one of them holds unharmed; number and digest of the last row.

    Rows count up to the first that neither copy has. What was damaged is kept under another name.

    Raises:
        StorageFull: there is no room to put it right.
    """
    count, digest = 0, ""
    with closing(Table(table)) as first, closing(Lines(lines)) as second:
        for row in _merged(first, second):
            count, digest = row.n, row.chain
        for copy in (first, second):
            copy.end(count)
    if first.damaged or first.short or second.damaged or second.short:
        with storage("the journal's repair", 2 * (size_of(table) + size_of(lines))):
            _rewrite(table, lines, [path for path, copy in ((table, first), (lines, second)) if copy.damaged])
        logger.warning("the journal has %d good rows; both of its copies have them again", count)
    return count, digest


def _merged(*copies: Copy) -> Iterator[Row]:
    """Each row from whichever copy has it unharmed, to the first that neither has."""
    digest, n = "", 1
    while True:
        found = [copy.row(n) for copy in copies]
        good = next((row for row in found if row is not None and row.follows(n, digest)), None)
        if good is None:
            return
        for copy, row in zip(copies, found, strict=True):
            copy.short |= row is None
            copy.damaged |= row is not None and row != good
        digest, n = good.chain, n + 1
        yield good


def _rewrite(table: Path, lines: Path, damaged: list[Path]) -> None:
    """Both copies anew. Killed in between, the next start finds one of them whole."""
    new = table.with_name(f".{table.name}.new")
    for end in ("", "-wal", "-shm"):
        new.with_name(new.name + end).unlink(missing_ok=True)
    with ExitStack() as stack:
        copies = [stack.enter_context(closing(copy)) for copy in (Table(table), Lines(lines))]
        db = stack.enter_context(closing(create(new)))
        text = stack.enter_context(atomic_file(lines.with_suffix(".mended")))
        db.execute("BEGIN")
        for row in _merged(*copies):
            insert(db, row)
            text.write(row.line())
        db.execute("COMMIT")
        text.flush()
        os.fsync(text.fileno())
    for path in damaged:
        _keep_aside(path)
    lines.with_suffix(".mended").replace(lines)
    for end in ("-wal", "-shm"):
        table.with_name(table.name + end).unlink(missing_ok=True)
    new.replace(table)


def _keep_aside(path: Path) -> None:
    number = sum(1 for _ in path.parent.glob(f"{path.name}.damaged-*")) + 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    os.link(path, aside)
    logger.warning("%s is damaged; what can be read is used, and the file is kept as %s", path.name, aside.name)
