"""A session that nobody disturbs: what every other one must leave, and where its processes can be killed."""

from __future__ import annotations

from dataclasses import dataclass

import tracer
from matrix import Kill
from soak_world import World
from tracer import Tracer

CLIENT = ("transports/http/client*.py", "transports/http/connection.py", "transports/http/dialling.py")
COORDINATOR = tracer.files_of(
    "driver/*.py", "journal*.py", "journal/*.py", "spool*.py", "spool/*.py", "files.py", "precision.py"
)
PARTICIPANT = tracer.files_of("participant*.py", "participant/*.py", "precision.py", *CLIENT, "files.py")


@dataclass(frozen=True)
class Undisturbed:
    """Its outputs, the boundaries of the coordinator and of the first participant, and how long it took."""

    outcome: dict
    boundaries: list
    participant: list
    seconds: float

    @classmethod
    def run(cls, ground, folder):
        world = World(ground, folder, slot=0)
        first, *others = ground.members
        with world.all_ended():
            coordinator = world.coordinator(Tracer(COORDINATOR), folder / "coordinator.json")
            participants = [world.participant(first, Tracer(PARTICIPANT), folder / "participant.json")]
            participants += [world.participant(member) for member in others]
            world.finish(coordinator, world.coordinator)
            world.await_all(participants)
        outcome, lines = world.outcome(), world.events()
        world.judge(outcome)
        met = [tracer.load(folder / f"{who}.json") for who in ("coordinator", "participant")]
        return cls(outcome, *met, lines[-1]["time"] - lines[0]["time"])

    def halfway(self):
        """A kill in the middle of the session: the journal's middle row."""
        rows = [boundary for boundary in self.boundaries if boundary.file == "nevermined_fl/journal/writing.py"]
        often = max(rows, key=lambda boundary: boundary.times)
        return Kill(often, often.times // 2 + 1)
