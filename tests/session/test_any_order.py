"""Whatever happens in whatever order: random walks through the session, watched by what must always hold.

The walks have their own books: what was accepted, ordered and committed, taken from events and effects alone. They print
how far they came, because a walk that never leaves the first round proves nothing.
"""

import random

from hypothesis import Phase as Stage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from session_books import REACH, SEEN
from session_moves import MOVES, Moves

from nevermined_fl.session import TRANSITIONS

WALKS, STEPS = 500, 50

CODES = {
    "bad_metric",
    "bad_weight",
    "late",
    "not_a_member",
    "not_in_cohort",
    "not_joined",
    "other_agreement",
    "other_answer",
    "other_model",
    "over",
    "stale_round",
    "wrong_phase",
}
RARE = {
    "asked 2 for the initial model",
    "attempt 2 drop",
    "attempt 2 use",
    "closed at the target, some missing",
    "closed below the target, nobody left",
    "committed 4",
    "ended in failed",
    "ended in finished",
    "evaluated by a part",
    "failed: none of",
    "failed: too few participants",
    "failed: too few updates",
    "late updates used",
    "lost in aggregation",
    "lost in configuration",
    "lost in initialization",
    "lost in reporting",
    "not evaluated",
    "over-selected",
    "repeats",
    "rolled back in aggregation",
    "rolled back in configuration",
    "rolled back in evaluation",
    "rolled back in finished",
    "rolled back in reporting",
    "rolled back twice or more",
    "stopped early",
}


def walk(seed):
    """Many steps, quickly."""
    chance = random.Random(seed)

    def choose(method):
        return {name: chance.choice(options) for name, options in method.choices.items()}

    one = Moves()
    one.open(**choose(Moves.open))
    for _ in range(STEPS):
        method = chance.choice([method for method in MOVES.values() if method.when(one)])
        method(one, **choose(method))
        if one.session.is_over() and chance.random() < 0.4:
            break
    one.end()


def test_wherever_the_walks_lead_the_books_agree(record_property):
    REACH.clear()
    SEEN.clear()
    try:
        for seed in range(WALKS):
            try:
                walk(seed)
            except Exception as error:
                error.add_note(f"in walk {seed}")
                raise
    finally:
        record_property("reach", "session walks: " + ", ".join(f"{name} {n}" for name, n in sorted(REACH.items())))
    # Walks that no longer get there prove nothing, however green.
    assert {name.removeprefix("refused ") for name in REACH if name.startswith("refused ")} == CODES
    assert {(phase, kind) for phase, row in TRANSITIONS.items() for kind in row} <= SEEN, "the whole table is walked"
    assert not {name: REACH[name] for name in RARE if REACH[name] < 5}


class Machine(RuleBasedStateMachine, Moves):
    """The same for hypothesis, which finds the shortest walk to a mistake."""

    open = initialize(**{name: st.sampled_from(options) for name, options in Moves.open.choices.items()})(Moves.open)

    def teardown(self):
        if hasattr(self, "session"):
            self.end()


for name, method in MOVES.items():
    options = {name: st.sampled_from(options) for name, options in method.choices.items()}
    setattr(Machine, name, precondition(method.when)(rule(**options)(method)))


def test_the_shortest_walk_to_a_mistake_is_found():
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=25,
            report_multiple_bugs=False,
            phases=(Stage.generate, Stage.shrink),
        ),
    )
