"""A kill matrix: which boundaries are tried, how their sessions are run, and what is told of them."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forks import in_slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracer import Boundary


@dataclass(frozen=True)
class Kill:
    """At the ``nth`` time of a boundary."""

    boundary: Boundary
    nth: int = 1

    def __str__(self):
        return f"{self.boundary} x{self.nth}"


def sample(boundaries, count, seed):
    """``count`` of them, spread over all files, each seed another choice; all of them when ``count`` is None."""
    everything = sorted(boundaries)
    if count is None or count >= len(everything):
        return everything
    return sorted(random.Random(f"soak {seed}").sample(everything, count))


def later(boundary, seed):
    """A random later hit of the boundary: 2 to as often as it was met."""
    return random.Random(f"{seed} {boundary}").randint(2, boundary.times)


class Tried:
    """Runs one session per kill, keeps the folders of those that failed, and says how it went."""

    def __init__(self, name, folder, record_property, seconds):
        self._name, self._folder, self._tell, self._seconds = name, folder, record_property, seconds
        self._begun = time.monotonic()

    def run(self, kills, session):
        """``session(kill, slot, folder)`` for each; it returns how often something was killed, and raises what is wrong."""
        jobs = [lambda slot, n=n, kill=kill: self._one(session, kill, slot, n) for n, kill in enumerate(kills)]
        results = in_slots(jobs, self._folder, self._seconds)
        failed = [f"{kill}: {r['failed']}" for kill, r in zip(kills, results, strict=True) if "failed" in r]
        missed = [str(kill) for kill, r in zip(kills, results, strict=True) if r.get("deaths") == 0]
        self.report = {
            "soak": self._name,
            "tried": len(kills),
            "missed": len(missed),
            "failed": len(failed),
            "seconds": round(time.monotonic() - self._begun, 1),
        }
        return failed, missed

    def tell(self, **more):
        """Print the figures at the end of the run."""
        self._tell("reach", json.dumps(self.report | more))

    def _one(self, session, kill, slot, number):
        folder = self._folder / f"{number}"
        begun = time.monotonic()
        deaths = session(kill, slot, folder)
        shutil.rmtree(folder)
        return {"deaths": deaths, "seconds": round(time.monotonic() - begun, 2)}


def judge(tried, kills, session, *, may_miss=0.2, **more):
    """Every session of the matrix ended as the undisturbed one; nearly every kill happened."""
    failed, missed = tried.run(kills, session)
    tried.tell(**more)
    assert not failed, "\n".join(failed)
    assert len(missed) <= len(kills) * may_miss, missed


@dataclass(frozen=True)
class Reach:
    """How far a test goes, where its sessions live, and how its figures are told."""

    full: bool
    seed: int
    folder: Path
    tell: Callable

    def tried(self, name, seconds=7000):
        """A matrix of that name."""
        return Tried(name, self.folder / "killed", self.tell, seconds)

    def kills(self, boundaries, share):
        """A share of the boundaries; in the full form all, and those that are met often at a later time too."""
        kills = [Kill(boundary) for boundary in sample(boundaries, None if self.full else share, self.seed)]
        again = boundaries if self.full else []
        return kills + [Kill(boundary, later(boundary, self.seed)) for boundary in again if boundary.times > 1]
