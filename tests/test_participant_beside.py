"""The coordinator is asked beside the work, which ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import ClassVar

import pytest
from participant_world import END, PLAN, UPDATE, Script, Trainer, participant, seed, told, train
from transport_worlds import digest, make_model

from nevermined_fl.errors import TransportError
from nevermined_fl.messages import Evaluate, Train, Wait
from nevermined_fl.participant.asking import Asking
from nevermined_fl.participant.beside import Overtaken, work_on


class Polled:
    """A link of which only the next task is asked; ``None`` never comes."""

    def __init__(self, *tasks):
        self.tasks, self.afters = list(tasks), []

    async def next_task(self, *, after, wait):
        self.afters.append(after)
        task = self.tasks.pop(0)
        if task is None:
            await asyncio.Event().wait()
        if isinstance(task, Exception):
            raise task
        return task


class Work:
    """What ends when it is told to."""

    def __init__(self):
        self.ended, self.cancelled = asyncio.Event(), False

    async def run(self):
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


@pytest.mark.parametrize("other", [END, train(2), train(1, 1), Evaluate(3, 1, digest(UPDATE), 60.0)])
async def test_work_that_nobody_waits_for_is_ended(other):
    """The round closed without us, or began again, or everything is over."""
    work, link = Work(), Polled(Wait(0), other)
    with pytest.raises(Overtaken) as caught:
        await work_on(train(1), work.run(), Asking(link), grace=0)
    assert (caught.value.task, work.cancelled) == (other, True)


async def test_work_goes_on_when_the_same_is_asked_again_or_the_coordinator_is_away():
    """It asks again when it lost somebody else's update."""
    work = Work()
    same = Train(9, 1, digest(make_model(1.0)), seed(1), 30.0)

    class Away(Polled):
        async def next_task(self, *, after, wait):
            if not self.tasks[1:]:
                work.ended.set()
            return await super().next_task(after=after, wait=wait)

    link = Away(same, TransportError("no answer"))
    assert await work_on(train(1), work.run(), Asking(link), grace=0) == "done"
    assert link.afters == [2, 9]


async def test_short_work_asks_nobody():
    async def work():
        return 5

    link = Polled()
    assert await work_on(train(1), work(), Asking(link)) == 5
    assert link.afters == []


async def test_what_is_to_be_done_instead_is_done_next(tmp_path):
    """The end of the session is told to each participant once: it must not be asked for again."""
    trainer = Trainer(Overtaken(END))
    assert await participant(PLAN, Script(PLAN, [train(1)]), trainer, tmp_path).run() == END
    assert told(tmp_path) == ["joined", "round_missed", "over"]


async def test_who_is_told_to_wait_at_once_asks_ever_more_slowly_until_there_is_something_to_do():
    asking, times = Asking(Polled(Wait(0), Wait(0), Wait(0), train(1), Wait(2))), [time.monotonic()]
    for _ in range(5):
        if not isinstance(await asking.next_task(0), Wait):
            asking.go_on()
        times.append(time.monotonic())
    first, second, third, none, first_again = (after - before for before, after in pairwise(times))
    assert none < 0.05 <= first < second < third > first_again >= 0.05


async def test_who_waited_as_long_as_it_was_to_asks_again_without_a_pause():
    class Slow(Polled):
        """Lets it wait, by a clock that it sets itself."""

        now = 0.0

        async def next_task(self, *, after, wait):
            self.now += wait
            return await super().next_task(after=after, wait=wait)

    link = Slow(Wait(0), Wait(0))
    asking, begun = Asking(link, clock=lambda: link.now), time.monotonic()
    for _ in range(2):
        await asking.next_task(0)
    assert time.monotonic() - begun < 0.05


async def test_who_is_asked_for_what_must_be_refused_asks_ever_more_slowly(tmp_path):
    class Timed(Script):
        """Notes when it was asked."""

        times: ClassVar = []

        async def next_task(self, *, after, wait):
            self.times.append(time.monotonic())
            return await super().next_task(after=after, wait=wait)

    link = Timed(PLAN, [train(98), train(99), train(100), train(1), train(101), END])
    await participant(PLAN, link, Trainer(), tmp_path).run()
    first, second, third, none, again = (after - before for before, after in pairwise(link.times))
    assert 0.05 <= first < second < third > again >= 0.05
    assert none < third
    assert told(tmp_path).count("refused") == 4
