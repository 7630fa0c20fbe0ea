"""Whatever happens in whatever order: a random walk through the session, watched by what must always hold.

The walk has its own books: what was accepted, ordered and committed, taken from events and effects alone. It prints how
far it came, because a walk that never leaves the first round proves nothing.
"""

import json
import math
from dataclasses import replace

from hypothesis import Phase as Stage
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from session_books import PEERS, REACH, Books
from session_world import MEMBERS, SESSION, agreement, digest, plan

from nevermined_fl.session import Phase, replay
from nevermined_fl.session.events import (
    Aggregated,
    Evaluated,
    Joined,
    Left,
    Reported,
    Restarted,
    Stopped,
    Ticked,
    from_json,
    to_json,
)
from nevermined_fl.session.ledger import contributions

members = st.sampled_from(MEMBERS)
answerers = st.integers(0, 9)  # 0 to 4 anybody, above somebody who owes an answer
examples = st.sampled_from((10, 0, 1, 99, 100, 101, 10**9, -1))  # the plan caps at 100 and refuses 0
shifts = st.sampled_from((0, 0, 0, 0, -1, 1))
metrics = st.sampled_from(
    (
        {},
        {"accuracy": 0.25},
        {"accuracy": 0.7504999, "loss": 3.0},
        {"accuracy": 1.5},
        {"accuracy": math.nan},
        {"canary": 0.5},
    )
)


class Walk(Books, RuleBasedStateMachine):
    """One session, and the books that say what it ought to be."""

    @initialize(
        size=st.integers(3, 5),
        minimum=st.integers(1, 3),
        ratio=st.sampled_from((1.0, 0.5, 0.5)),
        rounds=st.sampled_from((4, 3, 6, 2, 1)),
        metrics=st.booleans(),
        joiners=st.sampled_from((5, 3, 2, 1, 0)),
        head_start=st.integers(0, 3),
    )
    def open(self, *, size, minimum, ratio, rounds, metrics, joiners, head_start):
        changes = {"minParticipants": minimum, "participantsRatio": ratio, "rounds": rounds}
        self.begin(plan(MEMBERS[:size], **changes | ({} if metrics else {"metrics": []})))
        for participant in MEMBERS[:joiners]:
            self.say(Joined(participant, agreement(participant)))
        for _ in range(min(head_start, rounds - 1)):
            self.honest_round(straggler=None, examples=7)

    # --- rules: what peers, the driver and the clock may do -------------------------------------------------------

    @rule(participant=members, foreign=st.sampled_from((None, None, "0xforeign", *map(agreement, MEMBERS[:2]))))
    def join(self, participant, foreign):
        self.say(Joined(participant, foreign or agreement(participant)))

    @rule(participant=members)
    def leave(self, participant):
        self.say(Left(participant))

    @precondition(lambda self: self.session.round > 0)
    @rule(
        number=answerers,
        shift=shifts,
        right=st.sampled_from((True, True, True, False)),
        examples=examples,
        metrics=metrics,
    )
    def report(self, *, number, shift, right, examples, metrics):
        participant = self.answerer(number)
        about = self.session.round + shift
        model = self.models.get(about - 1, digest(0)) if right else digest(666)
        self.say(Reported(participant, about, model, self.fresh(), examples, metrics))

    @precondition(lambda self: self.session.round > 0)
    @rule(
        number=answerers,
        shift=shifts,
        right=st.sampled_from((True, True, True, False)),
        examples=examples,
        metrics=metrics,
    )
    def evaluate(self, *, number, shift, right, examples, metrics):
        participant = self.answerer(number)
        about = self.session.round + shift
        model = self.models.get(about, digest(0)) if right else digest(666)
        self.say(Evaluated(participant, about, model, examples, metrics))

    @precondition(lambda self: self.log)
    @rule(data=st.data(), twist=st.booleans())
    def repeat(self, data, twist):
        counted = [*self.accepted.values(), *self.evaluated.values()]
        said = [said for _, said in self.log[-20:] if isinstance(said, PEERS)]
        if counted or said:
            again = data.draw(st.sampled_from(counted * 2 + said))
            twisted = twist and isinstance(again, Reported | Evaluated)
            self.say(replace(again, examples=50 if again.examples > 50 else 51) if twisted else again)

    @precondition(lambda self: self.session.phase is Phase.AGGREGATION)
    @rule()
    def aggregate(self):
        self.models[self.session.round] = self.fresh()
        self.say(Aggregated(self.session.round, self.models[self.session.round]))

    @rule(seconds=st.sampled_from((0.0, 0.5, 10.0, 59.5)))
    def tick(self, seconds):
        self.now += seconds
        self.say(Ticked())

    @precondition(lambda self: self.session.deadline is not None and (self.has_enough() or len(self.log) > 45))
    @rule()
    def time_is_up(self):
        self.now = self.session.deadline
        self.say(Ticked())

    @rule()
    def restart(self):
        self.say(Restarted())

    @precondition(
        lambda self: len(self.log) > 45 or (self.session.phase is Phase.AGGREGATION and len(self.commits) > 1)
    )
    @rule()
    def stop(self):
        self.say(Stopped("enough"))

    @precondition(lambda self: not self.session.is_over())
    @rule(straggler=st.sampled_from((None, None, *MEMBERS[:3])), examples=st.integers(1, 150))
    def honest_round(self, straggler, examples):
        """Everybody does what is asked, a straggler perhaps not; ends when the round is committed or failed."""
        number = self.session.round
        for participant in self.plan.members:
            if self.session.phase in (Phase.SELECTION, Phase.CONFIGURATION):
                self.say(Joined(participant, self.bound.get(participant, agreement(participant))))
        number = max(number, self.session.round)
        self.answer(straggler, examples)
        if self.session.phase is Phase.AGGREGATION:
            self.aggregate()
        if self.session.round == number:
            self.answer(straggler, examples)

    def answer(self, straggler, examples):
        phase = self.session.phase
        if phase not in (Phase.REPORTING, Phase.EVALUATION):
            return
        for n, participant in enumerate(self.session.waits_for()):
            number, model = self.session.round, self.session.model
            if participant == straggler or self.session.phase is not phase:
                continue
            if phase is Phase.REPORTING:
                self.say(Reported(participant, number, model, self.fresh(), examples + n, {}))
            else:
                self.say(
                    Evaluated(
                        participant,
                        number,
                        model,
                        examples + n,
                        {"accuracy": n * 0.12345} | ({"loss": 1.5} if n % 2 else {}),
                    )
                )
        if self.session.phase is phase and self.session.deadline:
            self.now = self.session.deadline - 0.25
            self.say(Ticked())
            self.now += 0.25
            self.say(Ticked())

    def has_enough(self):
        """Not to fail too early: a walk that always dies young sees no second round."""
        reporting = self.session.phase is Phase.REPORTING
        came = self.session.updates if reporting else self.session.present()
        return len(came) >= self.plan.min_participants

    def answerer(self, number):
        owing = self.session.waits_for()
        return MEMBERS[number] if number < 5 else owing[number % len(owing)] if owing else MEMBERS[number - 5]

    def fresh(self):
        self.made += 1
        return digest(self.made)

    # --- what must always hold -------------------------------------------------------------------------------------

    @invariant()
    def it_ends_once_and_says_so(self):
        assert bool(self.ends) == self.session.is_over()
        assert len(set(self.ends)) <= 1

    @invariant()
    def it_waits_for_somebody_or_for_the_clock(self):
        if self.session.phase is Phase.REPORTING:
            assert self.session.waits_for() or len(self.session.updates) < self.plan.min_participants
        if self.session.phase is Phase.EVALUATION:
            assert self.session.waits_for()
        if self.session.phase is Phase.CONFIGURATION:
            assert len(self.session.present()) < self.plan.min_participants

    @invariant()
    def members_are_who_joined(self):
        assert {member.participant: member.agreement for member in self.session.members} == self.bound
        assert self.session.present() == tuple(sorted(self.here))

    @invariant()
    def history_is_what_was_committed(self):
        assert [(done.number, done.model) for done in self.session.history] == [
            (c.round, c.model) for c in self.commits
        ]
        folded = [row for number in range(1, len(self.commits) + 1) for row in self.folded[number].updates]
        assert sum(len(row.rounds) for row in contributions(self.session)) == len(folded)

    def teardown(self):
        if not hasattr(self, "session"):
            return
        log = [(now, from_json(json.loads(json.dumps(to_json(said))))) for now, said in self.log]
        assert replay(self.plan, SESSION, self.started, log) == self.session, "the log tells all"
        event(f"ended in {self.session.phase}, round {self.session.round}")
        REACH["walks"] += 1
        REACH["events"] += len(self.log)
        REACH[f"ended in {self.session.phase}"] += 1
        REACH[f"committed {len(self.commits)}"] += 1


def test_whatever_happens_the_books_agree(record_property):
    REACH.clear()
    try:
        run_state_machine_as_test(
            Walk,
            settings=settings(
                max_examples=200,
                stateful_step_count=30,
                report_multiple_bugs=False,
                phases=(Stage.generate, Stage.shrink),
            ),
        )
    finally:
        record_property("reach", "session walk: " + ", ".join(f"{name} {n}" for name, n in sorted(REACH.items())))
    # A walk that no longer gets there proves nothing, however green.
    assert min(REACH[f"ended in {phase}"] for phase in ("finished", "failed")) > 10
    assert sum(n for name, n in REACH.items() if name.startswith("committed") and int(name.split()[1]) >= 3) > 10
    codes = {name.removeprefix("refused ") for name in REACH if name.startswith("refused ")}
    assert codes >= {"stale_round", "not_in_cohort", "other_model", "other_answer", "late", "bad_weight", "bad_metric"}
    assert codes >= {"not_a_member", "not_joined", "other_agreement", "over"}
    assert REACH["repeats"] > 0
