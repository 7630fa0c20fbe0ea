"""Whose update of which round is where: one file per update, named by round, participant and digest."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl.codecs import safetensors
from nevermined_fl.digests import digest_file
from nevermined_fl.errors import DecodeError
from nevermined_fl.messages import UPDATE_DIGEST
from nevermined_fl.spool.inspection import check_header, scan
from nevermined_fl.spool.sink import Sink, arrived

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Spool"]

_WORTH_SPARING = 256 * 1024
"""Bytes from which on overwriting an old file is cheaper than making a new one."""


class Spool:
    """The updates of one session in one folder.

    Beside the folder, in ``<name>-spare``, lie files of rounds that are over, to be overwritten by the next; they hold
    nothing that anybody needs, and ``close`` removes them.

    Args:
        folder: the spool's own.
        schema: of the files that cross the wire.
    """

    def __init__(self, folder: Path, schema: Sequence[TensorSchema]) -> None:
        self._folder = folder
        self._spares = folder.with_name(f"{folder.name}-spare")
        for path in (self._folder, self._spares):
            path.mkdir(parents=True, exist_ok=True)
        self._unused = list(self._spares.iterdir())
        self._schema = tuple(schema)
        self._sinks: dict[Path, Sink] = {}
        self._of: dict[tuple[int, str], set[Path]] = {}  # a folder of a thousand files is not listed for each of them
        for path in self._folder.iterdir():
            self._note(path.with_suffix(""))
        self._peaks: dict[Path, float] = {}
        self.update_size = safetensors.file_size(self._schema)

    def open(
        self,
        participant: str,
        round_number: int,
        digest: str,
        size: int,
        judge: Callable[[Path], None] | None = None,
    ) -> Sink:
        """Start an upload or go on with it; an earlier sink of the same update is closed.

        ``judge`` may refuse the whole file before it has its name.

        Raises:
            DecodeError: ``size`` is not that of an update of this plan, or the digest is no digest.
        """
        if size != self.update_size:
            raise DecodeError(f"an update of this plan has {self.update_size} bytes, not {size}", code="size")
        path = self.path(participant, round_number, digest)
        for other in self._updates(participant, round_number) - {path}:
            self._forget(other)
        sink = Sink(path, digest, self._schema, self._reuse, judge)
        if (previous := self._sinks.get(path)) is not None:
            sink.follow(previous)
        self._sinks[path] = sink
        self._note(path)
        return sink

    def has(self, participant: str, round_number: int, digest: str) -> bool:
        """Whether that update is here, verified."""
        return self.path(participant, round_number, digest).exists()

    def arrived(self, participant: str, round_number: int) -> int:
        """How many bytes of an update of this round have come of that participant; all of them when it is verified."""
        return max((self._arrived(path) for path in self._updates(participant, round_number)), default=0)

    def peak(self, participant: str, round_number: int, digest: str) -> float:
        """No number of that verified update is larger in absolute value; found while it came, or by reading it now.

        Raises:
            DecodeError: the file is not whole any more.
            OSError: it is not there.
        """
        path = self.path(participant, round_number, digest)
        if path not in self._peaks:
            sink = self._sinks.get(path)
            known = None if sink is None else sink.peak
            self._peaks[path] = self._scan(path) if known is None else known
        return self._peaks[path]

    def verify(self, participant: str, round_number: int, digest: str) -> bool:
        """Whether that update is here and still what its digest names; reads the file."""
        path = self.path(participant, round_number, digest)
        return path.is_file() and path.stat().st_size == self.update_size and digest_file(path, digest) == digest

    def path(self, participant: str, round_number: int, digest: str) -> Path:
        """Where that update is, or would be."""
        if not UPDATE_DIGEST.fullmatch(digest):
            raise DecodeError("a digest is sha256:<64 hex> or blake3:<64 hex>")
        return self._folder / f"{round_number}-{_short(participant)}-{digest}"

    def discard(self, participant: str, round_number: int, digest: str) -> None:
        """Drop one update, whole or partial."""
        self._forget(self.path(participant, round_number, digest))

    def clear(self, round_number: int) -> None:
        """Drop the updates of this round and of earlier ones."""
        for key in [key for key in self._of if key[0] <= round_number]:
            for path in tuple(self._of[key]):
                self._forget(path)

    def make_room(self) -> None:
        """Give back what spares take."""
        with suppress(IndexError):
            while True:
                self._unused.pop().unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file; what came stays."""
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()
        self.make_room()

    def _scan(self, path: Path) -> float:
        with path.open("rb") as file:
            check_header(file.fileno(), self._schema)
            return scan(file.fileno(), self._schema)

    def _arrived(self, path: Path) -> int:
        if (sink := self._sinks.get(path)) is not None:
            return sink.offset
        return self.update_size if path.exists() else arrived(path.with_suffix(".part"), self.update_size)

    def _updates(self, participant: str, round_number: int) -> set[Path]:
        """Whether they have a file yet or not: asking opens one, and a peer may ask for many digests."""
        return self._of.get((round_number, _short(participant)), set())

    def _note(self, path: Path) -> None:
        number, short, _ = path.name.split("-")
        self._of.setdefault((int(number), short), set()).add(path)

    def _forget(self, path: Path) -> None:
        self._peaks.pop(path, None)
        if (sink := self._sinks.pop(path, None)) is not None:
            sink.close()
        path.with_suffix(".part").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            if self.update_size >= _WORTH_SPARING:
                self._unused.append(path.replace(self._spares / path.name))
            else:
                path.unlink()
        number, short, _ = path.name.split("-")
        key = int(number), short
        self._of.get(key, set()).discard(path)
        if not self._of.get(key):
            self._of.pop(key, None)

    def _reuse(self, part: Path) -> None:
        """Called from many threads: each takes another one."""
        with suppress(IndexError, FileNotFoundError):
            self._unused.pop().replace(part)


def _short(participant: str) -> str:
    return hashlib.sha256(participant.encode()).hexdigest()[:16]
