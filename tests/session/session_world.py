"""Members, digests and a session with a memory: what the tests of the session share."""

import json

from nevermined_fl.session import Plan, snapshot, start, step
from nevermined_fl.session.effects import Reject
from nevermined_fl.session.events import Aggregated, Evaluated, Joined, Reported

A, B, C, D, E = MEMBERS = tuple(f"did:nv:{letter * 64}" for letter in "abcde")
SESSION = "did:nv:" + "5" * 64


def digest(number):
    return f"sha256:{number:064x}"


def parameters(**changes):
    return {
        "rounds": 2,
        "minParticipants": 2,
        "initialModel": digest(0),
        "schema": [{"name": "weights", "dtype": "F32", "shape": [3, 2]}],
        "roundTimeout": 60.0,
        "selectionTimeout": 30.0,
        "seed": 7,
        "maxWeight": 100,
        "metrics": [
            {"name": "accuracy", "low": 0.0, "high": 1.0, "digits": 3},
            {"name": "loss", "low": 0.0, "high": 9.0},
        ],
    } | changes


def plan(members=(A, B, C), **changes):
    return Plan.from_parameters(parameters(**changes), members)


def agreement(participant):
    return "0x" + participant[-64:]


class World:
    """A session, the time, and the effects of the last event."""

    def __init__(self, *joined, at=1000.0, **changes):
        self.plan = plan(**changes)
        self.now = self.started = at
        self.session, self.effects = start(self.plan, SESSION, at)
        self.log = []
        for participant in joined:
            self.say(Joined(participant, agreement(participant)))

    def say(self, event, *, after=0.0):
        self.now += after
        self.log.append((self.now, event))
        self.session, self.effects = step(self.session, event, self.now)
        return self.effects

    def report(self, participant, update, examples=10, **changes):
        ours = self.session
        fields = {"round": ours.round, "model": ours.model, "metrics": {}, "attempt": ours.attempt} | changes
        return self.say(Reported(participant, update=digest(update), examples=examples, **fields))

    def evaluate(self, participant, accuracy, examples=10, **changes):
        fields = {"round": self.session.round, "model": self.session.model, "metrics": {"accuracy": accuracy}} | changes
        return self.say(Evaluated(participant, examples=examples, **fields))

    def aggregate(self, model):
        return self.say(Aggregated(self.session.round, digest(model)))

    def rounds(self, number):
        """Whole honest rounds."""
        for _ in range(number):
            for participant in self.session.cohort:
                self.report(participant, 1000 * self.session.round + MEMBERS.index(participant))
            self.aggregate(self.session.round)
            for participant in self.session.waits_for():
                self.evaluate(participant, 0.5)

    def restored(self):
        return snapshot.from_json(json.loads(json.dumps(snapshot.to_json(self.session))))

    def of(self, kind):
        return [effect for effect in self.effects if isinstance(effect, kind)]


def refusal(effects):
    """The code of the Reject that comes first."""
    return getattr(effects[0], "code", "accepted")


def refused(world, event, code):
    """The event is answered with that code and leaves no trace in the session."""
    before = world.session
    effects = world.say(event)
    assert refusal(effects) == code
    assert isinstance(effects[0], Reject)
    assert effects[0].participant == event.participant
    assert effects[0].message
    assert world.session == before
    return effects
