"""What holds for every strategy of the table, also for one that is added tomorrow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nevermined_fl.aggregation import AGGREGATORS, create

STRATEGIES = pytest.mark.parametrize("name", AGGREGATORS)
BETWEEN = ("fedavg", "median", "trimmed_mean")  # the model lies among the updates

numbers = {
    np.float16: st.floats(-1000, 1000, width=16),
    np.float32: st.floats(-1e9, 1e9, width=32),
    np.float64: st.floats(-1e100, 1e100),
}


@st.composite
def cohorts(draw):
    """Updates, their weights, the model before, two rounds of them."""
    dtype = draw(st.sampled_from(list(numbers)))
    length, count = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    blocks = npst.arrays(dtype, length, elements=numbers[dtype])
    rounds = draw(st.lists(st.lists(blocks, min_size=count, max_size=count), min_size=2, max_size=2))
    weights = draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    return rounds, weights, draw(blocks)


def two_rounds(name, rounds, weights, previous):
    """The models of two rounds, and the server's state after them."""
    aggregator, state, models = create(name), {}, [previous]
    for updates in rounds:
        models.append(aggregator.fold(updates, weights, models[-1], state))
    return models[1:], state


def same(left, right):
    return [block.tobytes() for block in left] == [block.tobytes() for block in right]


@STRATEGIES
@settings(max_examples=25)
@given(cohort=cohorts())
def test_shape_dtype_and_inputs_are_kept(name, cohort):
    rounds, weights, previous = cohort
    copies = [[block.copy() for block in updates] for updates in rounds], previous.copy()
    models, state = two_rounds(name, rounds, weights, previous)
    assert {(model.dtype, model.shape) for model in models} == {(previous.dtype, previous.shape)}
    assert np.isfinite(models).all()
    assert tuple(sorted(state)) == tuple(sorted(create(name).STATE))
    assert {(array.dtype, array.shape) for array in state.values()} <= {(np.dtype(np.float64), previous.shape)}
    assert all(same(updates, before) for updates, before in zip(rounds, copies[0], strict=True))
    assert same([previous], [copies[1]])


@STRATEGIES
@settings(max_examples=25)
@given(cohort=cohorts(), cut=st.integers(0, 6))
def test_folding_in_pieces_gives_the_bits_of_folding_whole(name, cohort, cut):
    rounds, weights, previous = cohort
    whole, state = two_rounds(name, rounds, weights, previous)
    pieces = [
        two_rounds(name, [[block[part] for block in updates] for updates in rounds], weights, previous[part])
        for part in (slice(None, cut), slice(cut, None))
    ]
    assert same(whole, [np.concatenate(parts) for parts in zip(*(models for models, _ in pieces), strict=True)])
    for key in create(name).STATE:
        assert same([state[key]], [np.concatenate([kept[key] for _, kept in pieces])])


@STRATEGIES
@settings(max_examples=25)
@given(cohort=cohorts())
def test_equal_inputs_give_equal_bits_and_old_state_is_not_written_into(name, cohort):
    rounds, weights, previous = cohort
    aggregator, state = create(name), {}
    aggregator.fold(rounds[0], weights, previous, state)
    kept = dict(state)
    copies = {key: array.copy() for key, array in state.items()}
    first = aggregator.fold(rounds[1], weights, previous, state)
    again = aggregator.fold(rounds[1], weights, previous, kept.copy())
    assert same([first], [again])
    assert all(same([kept[key]], [copies[key]]) for key in copies)


@STRATEGIES
@settings(max_examples=25)
@given(cohort=cohorts())
def test_where_everybody_agrees_with_the_model_it_stays(name, cohort):
    _, weights, previous = cohort
    models, _ = two_rounds(name, [[previous] * len(weights)] * 2, weights, previous)
    tolerance = 1e-12 * np.abs(previous.astype(np.float64))
    for model in models:
        assert (np.abs(model.astype(np.float64) - previous) <= tolerance).all()


@STRATEGIES
@settings(max_examples=25)
@given(cohort=cohorts(), seed=st.integers(0, 100))
def test_who_comes_first_does_not_matter_but_for_rounding(name, cohort, seed):
    rounds, weights, previous = cohort
    order = np.random.default_rng(seed).permutation(len(weights))
    one = create(name).fold(rounds[0], weights, previous, {})
    other = create(name).fold([rounds[0][n] for n in order], [weights[n] for n in order], previous, {})
    scale = max(float(np.abs([previous, *rounds[0]]).max()), 1e-6)
    assert np.allclose(one.astype(float) / scale, other.astype(float) / scale, rtol=0, atol=4 * np.finfo(one.dtype).eps)


@pytest.mark.parametrize("name", BETWEEN)
@settings(max_examples=25)
@given(cohort=cohorts())
def test_the_model_lies_among_the_updates(name, cohort):
    rounds, weights, previous = cohort
    model = create(name).fold(rounds[0], weights, previous, {}).astype(float)
    stack = np.stack(rounds[0]).astype(float)
    slack = 1e-12 * np.abs(stack).max(axis=0)
    assert (model >= stack.min(axis=0) - slack).all()
    assert (model <= stack.max(axis=0) + slack).all()


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam"])
def test_twice_the_weight_is_the_same_update_twice(name):
    chance = np.random.default_rng(3)
    first, second, previous = chance.normal(size=(3, 50))
    doubled = create(name).fold([first, second], [2, 1], previous, {})
    repeated = create(name).fold([first, first, second], [1, 1, 1], previous, {})
    assert np.allclose(doubled, repeated, rtol=1e-12, atol=1e-12)
    assert not np.allclose(doubled, create(name).fold([first, second], [1, 2], previous, {}))
