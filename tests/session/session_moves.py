"""What may happen to a session: moves of peers, driver and clock, each with the choices that it leaves open.

A move is a method of Moves; a walk picks one that makes sense ``when`` it may happen, and one of each of its choices.
"""

import json
import math
from dataclasses import replace

from session_books import PEERS, REACH, Books
from session_world import MEMBERS, SESSION, agreement, digest, plan

from nevermined_fl.session import Phase, replay
from nevermined_fl.session.events import (
    Adopted,
    Aggregated,
    Evaluated,
    Joined,
    Left,
    Lost,
    Reported,
    Restarted,
    RolledBack,
    Stopped,
    Ticked,
    from_json,
    to_json,
)

NUMBERS = tuple(range(10))
EXAMPLES = (10, 0, 1, 99, 100, 101, 10**9, -1)  # the plan caps at 100 and refuses 0
SHIFTS = (0, 0, 0, 0, -1, 1)
RIGHT = (True, True, True, False)
BOTH = (True, False)
METRICS = (
    {},
    {"accuracy": 0.25},
    {"accuracy": 0.7504999, "loss": 3.0},
    {"accuracy": 1.5},
    {"accuracy": math.nan},
    {"canary": 0.5},
)
EARLY = (
    None,
    None,
    {"metric": "accuracy", "target": 0.3},
    {"metric": "loss", "goal": "min", "target": 1.0},
    {"metric": "accuracy", "tolerance": 0.05},
    {"metric": "accuracy", "goal": "min", "tolerance": 0.05},
    {"metric": "accuracy", "tolerance": 0.0, "patience": 2},
    {"metric": "loss", "goal": "min", "tolerance": 0.1, "patience": 2},
)


def any_time(walk):
    return True


def move(when=any_time, **choices):
    """A method that a walk may take."""

    def mark(method):
        method.when, method.choices = when, choices
        return method

    return mark


def in_phase(*phases):
    return lambda walk: walk.session.phase in phases


def is_open(walk):
    return not walk.session.is_over()


class Moves(Books):
    """One session, its books, and what may happen next."""

    @move(
        size=(3, 4, 5),
        joiners=(5, 3, 2, 1, 0),
        head_start=(0, 0, 1, 2, 3),
        minimum=(1, 2, 3),
        ratio=(1.0, 0.5, 0.5, 0.3),
        rounds=(4, 3, 6, 2, 1),
        over=(1.0, 1.0, 1.4, 2.0),
        repeats=(0, 1, 2),
        late=("drop", "use"),
        every=(1, 1, 2, 3),
        evaluation=(None, 25.0),
        initial=(digest(0), "participant"),
        early=EARLY,
        metrics=(True, True, True, False),
    )
    def open(self, *, size, joiners, head_start, early, metrics, **choices):
        names = {
            "minimum": "minParticipants",
            "ratio": "participantsRatio",
            "rounds": "rounds",
            "over": "overSelection",
            "repeats": "repeats",
            "late": "lateUpdates",
            "every": "evaluateEvery",
            "evaluation": "evaluationTimeout",
            "initial": "initialModel",
        }
        changes = {names[name]: value for name, value in choices.items()}
        self.begin(plan(MEMBERS[:size], **changes, **({"earlyStop": early} if metrics else {"metrics": []})))
        for participant in MEMBERS[:joiners]:
            self.say(Joined(participant, agreement(participant)))
        for _ in range(min(head_start, self.plan.rounds - 1)):
            self.honest_round(straggler=None, examples=7, until="committed", damaged=False)

    # --- who comes and goes ---

    @move(participant=MEMBERS, foreign=(None, None, "0xforeign", *map(agreement, MEMBERS[:2])))
    def join(self, participant, foreign):
        self.say(Joined(participant, foreign or agreement(participant)))

    @move(participant=MEMBERS)
    def leave(self, participant):
        self.say(Left(participant))

    @move(in_phase(Phase.REPORTING, Phase.EVALUATION), stay=(0, 1, 2, 2), late=BOTH, damaged=BOTH)
    def walk_out(self, stay, late, damaged):
        """A network breaks down: most are gone, perhaps until after the deadline."""
        for participant in sorted(self.here)[stay:]:
            self.say(Left(participant))
        if late and self.session.deadline is not None and self.may_time_out():
            self.now = self.session.deadline
            self.say(Ticked())
        if damaged:
            self.damage()

    @move(lambda walk: is_open(walk) and len(walk.here) < len(walk.plan.members), number=(1, 2, 3, 4, 5))
    def come_back(self, number):
        for participant in self.plan.members[:number]:
            self.say(Joined(participant, self.bound.get(participant, agreement(participant))))

    # --- answers, right and wrong ---

    @move(
        lambda walk: walk.session.phase is not Phase.SELECTION,
        number=NUMBERS,
        shift=SHIFTS,
        back=(0, 0, 0, 1, -1),
        right=RIGHT,
        examples=EXAMPLES,
        metrics=METRICS,
    )
    def report(self, *, number, shift, back, right, examples, metrics):
        participant = self.answerer(number)
        about, update = self.session.round + shift, self.fresh()
        model = (self.models.get(about - 1, digest(0)) if about > 0 else update) if right else digest(666)
        attempt = max(0, self.session.attempt - back)
        self.say(Reported(participant, about, model, update, examples, metrics, attempt))

    @move(lambda walk: walk.session.attempt > 0 and 0 < walk.session.round in walk.cohorts, number=NUMBERS, back=(0, 1))
    def report_late(self, number, back):
        """Somebody who was asked in an earlier attempt is done now."""
        asked = sorted(self.were_asked(self.session.round) & self.here) or MEMBERS
        model, attempt = self.models[self.session.round - 1], max(0, self.session.attempt - back)
        participant = asked[number % len(asked)]
        self.say(Reported(participant, self.session.round, model, self.fresh(), 10 + number, {}, attempt))

    @move(
        lambda walk: walk.session.phase is not Phase.SELECTION,
        number=NUMBERS,
        shift=SHIFTS,
        right=RIGHT,
        examples=EXAMPLES,
        metrics=METRICS,
    )
    def evaluate(self, *, number, shift, right, examples, metrics):
        participant = self.answerer(number)
        about = self.session.round + shift
        model = self.models.get(about, digest(0)) if right else digest(666)
        self.say(Evaluated(participant, about, model, examples, metrics))

    @move(lambda walk: walk.log, number=tuple(range(100)), twist=BOTH)
    def repeat(self, number, twist):
        counted = [*self.accepted.values(), *self.evaluated.values()]
        said = [said for _, said in self.log[-20:] if isinstance(said, PEERS)]
        if counted or said:
            again = (counted * 2 + said)[number % len(counted * 2 + said)]
            twisted = twist and isinstance(again, Reported | Evaluated)
            self.say(replace(again, examples=50 if again.examples > 50 else 51) if twisted else again)

    # --- driver, clock and owner ---

    @move(lambda walk: walk.session.phase is Phase.INITIALIZATION and walk.session.updates)
    def adopt(self):
        self.models[0] = self.session.updates[0].update
        self.say(Adopted(self.models[0]))

    @move(in_phase(Phase.AGGREGATION))
    def aggregate(self):
        self.models[self.session.round] = self.fresh()
        self.say(Aggregated(self.session.round, self.models[self.session.round]))

    @move(seconds=(0.0, 0.5, 5.0, 24.5))
    def tick(self, seconds):
        self.now += seconds
        self.say(Ticked())

    @move(lambda walk: walk.session.deadline is not None and (walk.may_time_out() or len(walk.log) > 45))
    def time_is_up(self):
        self.now = self.session.deadline
        self.say(Ticked())

    @move()
    def restart(self):
        self.say(Restarted())

    @move(lambda walk: walk.session.updates, number=NUMBERS, twist=(False, False, False, True))
    def lose(self, number, twist):
        """The body of a counted update is damaged, or of one that counts no more."""
        update = self.session.updates[number % len(self.session.updates)]
        about = self.session.round - (twist and number < 5)
        self.say(Lost(update.participant, about, digest(666) if twist and number >= 5 else update.update))

    @move(
        lambda walk: (
            walk.session.phase not in (Phase.SELECTION, Phase.INITIALIZATION, Phase.FAILED)
            and sum(isinstance(said, RolledBack) for _, said in walk.log) < 2
        ),
        back=(0, 1, 2),
    )
    def roll_back(self, back):
        """A model is damaged, mostly the newest."""
        newest = self.session.round if self.session.phase is Phase.EVALUATION else len(self.commits)
        first = 0 if self.plan.initial_model == "participant" else 1
        if newest - back >= first:
            self.say(RolledBack(newest - back))

    @move(sure=NUMBERS)
    def stop(self, sure):
        if sure == 9:
            self.say(Stopped("enough"))

    # --- as it should be ---

    @move(
        is_open,
        straggler=(None, None, *MEMBERS[:3]),
        examples=(1, 7, 99, 100, 150),
        until=("committed", "committed", "aggregated", "reported", "made"),
        damaged=BOTH,
    )
    def honest_round(self, straggler, examples, until, damaged):
        """Everybody does what is asked, a straggler perhaps not; ends at the latest when the round is committed."""
        self.work(straggler, examples, until)
        if damaged and until != "committed":
            self.damage()

    def work(self, straggler, examples, until):
        number = self.session.round
        for participant in self.plan.members:
            if self.session.phase in (Phase.SELECTION, Phase.CONFIGURATION):
                self.say(Joined(participant, self.bound.get(participant, agreement(participant))))
        if self.session.phase is Phase.INITIALIZATION:
            for participant in self.session.waits_for():
                made = self.fresh()
                self.say(Reported(participant, 0, made, made, 1, {}))
            if until == "made":
                return
            self.adopt()
        number = max(number, self.session.round)
        self.answer(straggler, examples)
        if self.session.phase is Phase.AGGREGATION and until != "reported":
            self.aggregate()
        if self.session.round == number and until == "committed":
            self.answer(straggler, examples)

    def damage(self):
        """What is in use now is not there any more."""
        if self.session.phase is Phase.EVALUATION:
            self.say(RolledBack(self.session.round))
        elif self.session.updates and not self.session.is_over():
            update = self.session.updates[-1]
            self.say(Lost(update.participant, self.session.round, update.update))

    def answer(self, straggler, examples):
        straying = (7919, 50_000, 31_337)[examples % 3]  # metrics get better, worse and better again
        phase = self.session.phase
        if phase not in (Phase.REPORTING, Phase.EVALUATION):
            return
        for n, participant in enumerate(self.session.waits_for()):
            number, model = self.session.round, self.session.model
            if participant == straggler or self.session.phase is not phase:
                continue
            if phase is Phase.REPORTING:
                self.say(Reported(participant, number, model, self.fresh(), examples + n, {}, self.session.attempt))
            else:
                accuracy = (number * straying + n * 12345) % 100_000 / 100_000
                metrics = {"accuracy": accuracy} | ({"loss": 1 + accuracy * 2} if n % 2 else {})
                self.say(Evaluated(participant, number, model, examples + n, metrics))
        if self.session.phase is phase and self.session.deadline:
            self.now = self.session.deadline - 0.25
            self.say(Ticked())
            self.now += 0.25
            self.say(Ticked())

    def may_time_out(self):
        """Not to fail too early: a walk that always dies young sees no second round."""
        if self.session.phase is Phase.INITIALIZATION:
            return set(self.session.present()) > set(self.tried)
        reporting = self.session.phase is Phase.REPORTING
        came = self.session.updates if reporting else self.session.present()
        repeatable = self.session.round > 0 and self.attempt < self.plan.repeats
        return len(came) >= self.plan.min_participants or repeatable

    def answerer(self, number):
        owing = self.session.waits_for()
        return MEMBERS[number] if number < 5 else owing[number % len(owing)] if owing else MEMBERS[number - 5]

    def fresh(self):
        self.made += 1
        return digest(self.made)

    def end(self):
        """The log alone tells all of it again."""
        log = [(now, from_json(json.loads(json.dumps(to_json(said))))) for now, said in self.log]
        assert replay(self.plan, SESSION, self.started, log) == self.session
        REACH["walks"] += 1
        REACH["events"] += len(self.log)
        REACH[f"ended in {self.session.phase}"] += 1
        REACH[f"committed {len(self.commits)}"] += 1


MOVES = {name: method for name, method in vars(Moves).items() if hasattr(method, "choices") and name != "open"}
