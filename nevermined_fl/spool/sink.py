"""A sink: takes one update in, block by block, and lets it have its name only when it was verified.

A part file is as long as the whole update from the beginning; a count behind it says how much has come. So it may be a
file that held another update: pages that exist are overwritten at half the cost of new ones, and a process that dies
leaves a count that is never ahead of the bytes.

Rule 1: digest and numbers are judged on the block at hand, never by reading the file again. Rule 2: what was found on
disk is read before it is gone on with; if the whole then turns out wrong, the disk may be to blame, so the peer is asked
for the bytes again instead of being refused. Rule 3: whoever has a say in it judges the part: what has its name counts.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NoReturn

from nevermined_fl.codecs import safetensors
from nevermined_fl.digests import hasher_of
from nevermined_fl.errors import DecodeError, RemoteProtocolError, TransportError
from nevermined_fl.files import digest_of, storage
from nevermined_fl.spool.inspection import Inspection, check_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nevermined_fl.session.plan import TensorSchema

__all__ = ["Sink", "arrived"]

_BLOCK = 256 * 1024
_COUNT = 8


class Sink:
    """One update on its way in. Calls may come from any thread; what comes after ``close`` is refused.

    Args:
        path: where the update will be.
        digest: that names it.
        schema: of the file.
        reuse: puts a file that may be overwritten at the path that it is given, if there is one.
        judge: looks at the whole part, whose bytes are verified, and may refuse it.
    """

    def __init__(
        self,
        path: Path,
        digest: str,
        schema: Sequence[TensorSchema],
        reuse: Callable[[Path], None],
        judge: Callable[[Path], None] | None = None,
    ) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._digest = digest
        self._schema = schema
        self._header = safetensors.header_bytes(schema)
        self._size = safetensors.file_size(schema)
        self._reuse = reuse
        self._judge = judge
        self._lock = threading.Lock()
        self._done = path.exists()
        self._closed = False
        self._handle = -1
        self._hasher = hasher_of(digest)
        self._inspection = Inspection(schema)
        self._peak: float | None = None
        self._found = 0 if self._done else arrived(self._part, self._size)
        self._offset = self._size if self._done else self._found

    @property
    def offset(self) -> int:
        """Bytes received so far."""
        return self._offset

    @property
    def peak(self) -> float | None:
        """No number of the update is larger in absolute value; None when it was not taken in by this process."""
        return self._peak

    def follow(self, previous: Sink) -> None:
        """Go on where a sink of the same update stands; that one takes no more."""
        previous._closed = True  # at once: it may be reading a large part again
        with previous._lock, self._lock:
            self._handle, previous._handle = previous._handle, -1
            self._hasher, self._inspection = previous._hasher, previous._inspection
            self._offset, self._found = previous._offset, previous._found
            self._done, self._peak = previous._done, previous._peak

    def write(self, block: bytes | memoryview) -> None:
        """Append a block.

        Raises:
            DecodeError: more than an update has, a header that is not the plan's, a number that is not finite.
            RemoteProtocolError: the same update is being uploaded anew.
            StorageFull: there is no room; what came before is kept.
        """
        with self._lock:
            self._refuse_closed()
            if self._offset + len(block) > self._size:
                raise DecodeError(f"an update of this plan has {self._size} bytes, more came", code="size")
            try:
                with storage("an update cannot be stored", self._size - self._offset):
                    self._open()
                    _write_all(self._handle, memoryview(block), self._offset)
                self._take_in(memoryview(block))
            except DecodeError as error:
                self._fail(error)
            with storage("an update cannot be stored", _COUNT):
                os.pwrite(self._handle, self._offset.to_bytes(_COUNT, "little"), _count_at(self._size))

    def commit(self) -> None:
        """Keep what came if it is what its digest names; what is wrong or refused is dropped, what is short stays."""
        with self._lock:
            self._refuse_closed()
            if self._done:
                return
            if self._offset < self._size:
                raise DecodeError(f"{self._offset} of {self._size} bytes came", code="truncated")
            try:
                with storage("an update cannot be stored"):
                    self._open()
                if digest_of(self._hasher) != self._digest:
                    raise DecodeError("the update is not what its digest names", code="digest")
            except DecodeError as error:
                self._fail(error)
        self._let_judge()
        with self._lock:
            self._refuse_closed()
            os.ftruncate(self._handle, self._size)
            self._release()
            self._part.replace(self._path)
            self._done, self._peak = True, self._inspection.peak()

    def _let_judge(self) -> None:
        """Without the lock: that takes long, and whoever starts the upload anew must not wait for it."""
        if self._judge is None:
            return
        try:
            self._judge(self._part)
        except RemoteProtocolError:
            with self._lock:
                if not self._closed:
                    self._drop()
            raise

    def close(self) -> None:
        """Refuse what still comes; bytes that came stay."""
        self._closed = True
        with self._lock:
            self._release()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise RemoteProtocolError("this upload was started anew", code="superseded")

    def _take_in(self, block: memoryview) -> None:
        self._hasher.update(block)
        before, self._offset = self._offset, self._offset + len(block)
        if before < len(self._header) <= self._offset:
            check_header(self._handle, self._schema)
        self._inspection.feed(block)

    def _open(self) -> None:
        if self._handle >= 0:
            return
        if not self._offset:
            self._reuse(self._part)
        self._handle = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o600)
        if not self._offset:
            os.ftruncate(self._handle, _count_at(self._size))  # without a count that is left of something else
        os.ftruncate(self._handle, _count_at(self._size) + _COUNT)
        self._read_again()

    def _read_again(self) -> None:
        """Digest what was found; who is closed meanwhile leaves it to the next."""
        end, self._offset = self._offset, 0
        block = memoryview(bytearray(min(_BLOCK, end)))
        while self._offset < end:
            if self._closed:
                self._release()
                self._hasher, self._inspection, self._offset = hasher_of(self._digest), Inspection(self._schema), end
                self._refuse_closed()
            count = os.preadv(self._handle, [block[: end - self._offset]], self._offset)
            self._take_in(block[:count])

    def _fail(self, error: DecodeError) -> NoReturn:
        """Drop it all; the peer is to blame, unless some of it lay here while no process watched over it."""
        found = self._found
        self._drop()
        if found:
            raise TransportError("what had come of the update was damaged here; it is asked for anew") from error
        raise error

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def _drop(self) -> None:
        self._release()
        self._part.unlink(missing_ok=True)
        self._hasher, self._inspection = hasher_of(self._digest), Inspection(self._schema)
        self._offset = self._found = 0


def arrived(part: Path, size: int) -> int:
    """How many of an update's ``size`` bytes a part file holds; none when its count was lost."""
    try:
        with part.open("rb") as file:
            raw = os.pread(file.fileno(), _COUNT, _count_at(size))
    except FileNotFoundError:
        return 0
    count = int.from_bytes(raw, "little") if len(raw) == _COUNT else 0
    return count if count <= size else 0


def _count_at(size: int) -> int:
    """Aligned, so that the count lies in one page."""
    return -(-size // _COUNT) * _COUNT


def _write_all(handle: int, block: memoryview, position: int) -> None:
    while block:
        count = os.pwrite(handle, block, position)
        block, position = block[count:], position + count
