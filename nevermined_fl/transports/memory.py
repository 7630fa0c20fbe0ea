"""The wire inside one process: a link that calls the coordinator's service directly. For simulations and tests."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

from nevermined_fl.errors import DecodeError, Unauthenticated
from nevermined_fl.files import BLOCK, sha256_file, size_of
from nevermined_fl.messages import encode
from nevermined_fl.tokens import EVALUATED, REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.messages import Evaluated, Joined, JoinRequest, Report, Task, Verdict
    from nevermined_fl.ports import SessionService, UpdateSink
    from nevermined_fl.tokens import JobKey

__all__ = ["FINGERPRINT", "MemoryLink"]

FINGERPRINT = "memory"
"""Stands where a certificate's fingerprint stands on other transports."""


class MemoryLink:
    """A participant's link to a service in the same process."""

    def __init__(self, service: SessionService, key: JobKey) -> None:
        self._service = service
        self._key = key
        self._participant = ""

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        joined = await self._service.join(request)
        self._participant = joined.participant
        return joined

    async def next_task(self, *, after: int, wait: float) -> Task:
        """As SessionService.next_task."""
        return await self._service.next_task(self._me(), after=after, wait=wait)

    async def fetch_model(self, digest: str, into: Path) -> None:
        """Copy, check the digest, and rename into place."""
        me = self._me()
        part = await self._copied(self._service.model_path(digest, participant=me), into)
        if await asyncio.to_thread(sha256_file, part) != digest:
            raise DecodeError("the model is not what its digest names", code="digest")
        part.replace(into)

    async def fetch_delta(self, base: str, digest: str, into: Path) -> None:
        """Copy and rename into place."""
        path = self._service.delta_path(base, digest, participant=self._me())
        (await self._copied(path, into)).replace(into)

    async def send_update(self, *, round_number: int, digest: str, path: Path) -> None:
        """Copy from where the coordinator has got to."""
        sink = self._service.open_update(self._me(), round_number=round_number, digest=digest, size=size_of(path))
        await asyncio.to_thread(_copy, path, sink)

    async def report(self, report: Report) -> Verdict:
        """Sign and send."""
        return await self._service.report(self._me(), self._key.sign(encode(report), typ=REPORT))

    async def evaluated(self, evaluated: Evaluated) -> Verdict:
        """Sign and send."""
        return await self._service.evaluated(self._me(), self._key.sign(encode(evaluated), typ=EVALUATED))

    async def leave(self) -> None:
        """Say that no answer will come any more."""
        await self._service.leave(self._me())

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _copied(self, path: Path, into: Path) -> Path:
        part = into.with_name(f"{into.name}.part")
        await asyncio.to_thread(shutil.copyfile, path, part)
        self._service.fetched(self._me())
        return part

    def _me(self) -> str:
        if not self._participant:
            raise Unauthenticated("join first", check="bearer")
        return self._participant


def _copy(path: Path, sink: UpdateSink) -> None:
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        file.seek(sink.offset, os.SEEK_SET)
        while count := file.readinto(block):
            sink.write(block[:count])
    sink.commit()
