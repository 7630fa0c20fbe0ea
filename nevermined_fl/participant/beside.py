"""Beside the work: is what the participant works on still wanted?

Training may take an hour, and meanwhile the round may have closed without us, or the session ended. So while the buyer's
code is busy the coordinator is asked for the next task. An answer that makes the work useless ends it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from nevermined_fl.errors import NeverminedFLError
from nevermined_fl.messages import Wait

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from nevermined_fl.messages import Task
    from nevermined_fl.participant.asking import Asking

__all__ = ["Overtaken", "work_on"]

T = TypeVar("T")

_GRACE = 2.0
"""Seconds of work before the coordinator is asked: shorter work is over before the answer could matter."""


class Overtaken(Exception):
    """The coordinator asks for ``task`` instead."""

    def __init__(self, task: Task) -> None:
        super().__init__(type(task).__name__)
        self.task = task


async def work_on(task: Task, work: Coroutine[Any, Any, T], asking: Asking, *, grace: float = _GRACE) -> T:
    """The work's result.

    Args:
        task: what the work answers.
        work: it; ended when it is not wanted any more.
        asking: nobody else may ask meanwhile.
        grace: seconds before the coordinator is asked.

    Raises:
        Overtaken: it was not wanted any more.
    """
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_listen(task, asking, grace))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and (other := listening.result()) is not None:
            raise Overtaken(other)
        return await working
    finally:
        for future in (working, listening):
            future.cancel()
        await asyncio.gather(working, listening, return_exceptions=True)


async def _listen(task: Task, asking: Asking, grace: float) -> Task | None:
    """The task that makes this one useless; None when the coordinator cannot be asked."""
    await asyncio.sleep(grace)
    after = task.seq
    try:
        while True:
            other = await asking.next_task(after)
            if not isinstance(other, Wait):
                if not _is_same(task, other):
                    return other
                after = other.seq
    except NeverminedFLError:
        return None  # whoever delivers the result will see what is wrong


def _is_same(task: Task, other: Task) -> bool:
    """Whether it asks for the same again, as a coordinator does that lost something of somebody else's."""
    names = ("round", "model", "seed")
    return type(task) is type(other) and all(getattr(task, n, None) == getattr(other, n, None) for n in names)
