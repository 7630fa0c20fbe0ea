"""What a round's metrics are, of whatever size and in whatever number."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_world import MEMBERS, World

from nevermined_fl.session import Phase

HUGE = [{"name": "accuracy", "low": -1e300, "high": 1e300, "digits": 12}]


def mean(told, **changes):
    """Of (value, examples) pairs, one per participant."""
    members = MEMBERS[: len(told)]
    wide = {"metrics": HUGE, "maxWeight": 2**53 - 1, "minParticipants": 1, "rounds": 1} | changes
    world = World(*members, members=members, **wide)
    for participant in members:
        world.report(participant, 11)
    world.aggregate(1)
    for participant, (value, examples) in zip(members, told, strict=True):
        world.evaluate(participant, value, examples=examples)
    assert world.session.phase is Phase.FINISHED
    assert json.dumps(dict(world.session.history[0].metrics), allow_nan=False)
    return dict(world.session.history[0].metrics)["accuracy"]


@pytest.mark.parametrize("examples", [1, 10**9, 2**53 - 1])
def test_a_mean_of_the_largest_numbers_does_not_overflow(examples):
    assert mean([(1e300, examples), (1e300, examples)]) == 1e300
    assert mean([(1e300, examples), (0.0, examples)]) == 5e299
    assert mean([(1e300, examples), (-1e300, examples), (6.0, examples)]) == 2.0


@pytest.mark.parametrize("value", [0.95, 0.7, 0.99, 0.1, 0.05, 0.3])
@pytest.mark.parametrize("examples", [(1, 2, 3), (7, 11, 13), (40, 70, 100)])
def test_what_everybody_says_is_the_mean(value, examples):
    assert mean([(value, count) for count in examples]) == value


def test_a_mean_is_of_the_decimals_as_they_were_written():
    assert mean([(0.2, 1), (0.3, 1), (0.7, 1)]) == 0.4  # of their nearest floats: 0.39999999999999997
    assert mean([(0.5, 1), (0.8, 2)]) == 0.7  # 0.7000000000000001


numbers = st.floats(-1e300, 1e300) | st.decimals(-100, 100, places=6).map(float)
rows = st.lists(st.tuples(numbers, st.integers(1, 2**53 - 1)), min_size=1, max_size=5)


@given(rows)
def test_a_mean_lies_between_what_was_given_and_is_rounded_once(told):
    rounded = [(round(value, 12), examples) for value, examples in told]
    found = mean(told)
    assert min(value for value, _ in rounded) <= found <= max(value for value, _ in rounded)
    total = sum(Fraction(str(value)) * examples for value, examples in rounded)
    assert found == float(total / sum(examples for _, examples in rounded))
