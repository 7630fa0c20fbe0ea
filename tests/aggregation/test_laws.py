"""What holds for every strategy of the table, also for one that is added tomorrow."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nevermined_fl.aggregation import AGGREGATORS, create
from nevermined_fl.aggregation.rule import Known
from nevermined_fl.errors import SessionFailed

STRATEGIES = pytest.mark.parametrize("name", AGGREGATORS)
ARITHMETIC = pytest.mark.parametrize("arithmetic", ["fixed", "float"])
BETWEEN = ("fedavg", "fedprox", "median", "trimmed_mean", "krum", "multi_krum")  # the model lies among the updates
PICKS = ("krum", "multi_krum")  # of equally good updates they take the first: the order of the cohort may count
ROBUST = {
    "median": {},
    "trimmed_mean": {"trim": 0.3},
    "krum": {"byzantine": 2},
    "multi_krum": {"byzantine": 2, "keep": 3},
}
OPTIONS = {
    "trimmed_mean": {"trim": 0.3},
    "krum": {"byzantine": 0},
    "multi_krum": {"byzantine": 0, "keep": 2},
    "norm_clipping": {"norm": 100.0},
}

numbers = {
    np.float16: st.floats(-1000, 1000, width=16),
    np.float32: st.floats(-1e9, 1e9, width=32),
    np.float64: st.floats(-1e100, 1e100),
}


@st.composite
def cohorts(draw):
    """Updates, their weights, the model before, two rounds of them."""
    dtype = draw(st.sampled_from(list(numbers)))
    length, count = draw(st.integers(1, 6)), draw(st.integers(4, 7))  # enough for every strategy with these options
    blocks = npst.arrays(dtype, length, elements=numbers[dtype])
    rounds = draw(st.lists(st.lists(blocks, min_size=count, max_size=count), min_size=2, max_size=2))
    weights = draw(st.lists(st.integers(1, 1000), min_size=count, max_size=count))
    return rounds, weights, draw(blocks)


def made(name):
    return create(name, OPTIONS.get(name))


def knowledge(name, updates, weights, previous, arithmetic="fixed"):
    """What is known before a fold, from all of the model."""
    aggregator = made(name)
    before = float(np.abs(previous).max()) if aggregator.SUMS_CHANGES else 0.0
    peaks = tuple(float(np.abs(update).max()) + before for update in updates) if arithmetic == "fixed" else None
    known = Known(tuple(weights), peaks, members=len(weights) + 2)
    if aggregator.SURVEYS:
        known = replace(known, shares=aggregator.conclude(aggregator.survey(updates, previous), weights))
    return known


def two_rounds(name, rounds, weights, previous, *, arithmetic="fixed", known=(), part=slice(None)):
    """The models of two rounds, what was known in them, and the server's state after them."""
    aggregator, state, models, told = made(name), {}, [previous[part]], []
    whole = previous
    for index, updates in enumerate(rounds):
        told.append(known[index] if known else knowledge(name, updates, weights, whole, arithmetic))
        models.append(aggregator.fold([update[part] for update in updates], told[-1], models[-1], state))
        whole = models[-1]
    return models[1:], told, state


def same(left, right):
    return [block.tobytes() for block in left] == [block.tobytes() for block in right]


@STRATEGIES
@ARITHMETIC
@settings(max_examples=20)
@given(cohort=cohorts())
def test_shape_dtype_and_inputs_are_kept(name, arithmetic, cohort):
    rounds, weights, previous = cohort
    copies = [[block.copy() for block in updates] for updates in rounds], previous.copy()
    models, _, state = two_rounds(name, rounds, weights, previous, arithmetic=arithmetic)
    assert {(model.dtype, model.shape) for model in models} == {(previous.dtype, previous.shape)}
    assert np.isfinite(models).all()
    assert tuple(sorted(state)) == tuple(sorted(made(name).STATE))
    assert {(array.dtype, array.shape) for array in state.values()} <= {(np.dtype(np.float64), previous.shape)}
    assert all(same(updates, before) for updates, before in zip(rounds, copies[0], strict=True))
    assert same([previous], [copies[1]])


@STRATEGIES
@ARITHMETIC
@settings(max_examples=20)
@given(cohort=cohorts(), cut=st.integers(1, 5))
def test_folding_in_pieces_gives_the_bits_of_folding_whole(name, arithmetic, cohort, cut):
    rounds, weights, previous = cohort
    whole, known, state = two_rounds(name, rounds, weights, previous, arithmetic=arithmetic)
    pieces = [
        two_rounds(name, rounds, weights, previous, known=known, part=part)
        for part in (slice(None, cut), slice(cut, None))
        if previous[part].size
    ]
    assert same(whole, [np.concatenate(parts) for parts in zip(*(models for models, _, _ in pieces), strict=True)])
    for key in made(name).STATE:
        assert same([state[key]], [np.concatenate([kept[key] for _, _, kept in pieces])])


@pytest.mark.parametrize("name", [name for name in AGGREGATORS if create(name).SURVEYS])
@settings(max_examples=20)
@given(cohort=cohorts(), cut=st.integers(1, 5))
def test_surveys_of_pieces_add_up(name, cohort, cut):
    rounds, _, previous = cohort
    parts = [part for part in (slice(None, cut), slice(cut, None)) if previous[part].size]
    surveys = [made(name).survey([update[part] for update in rounds[0]], previous[part]) for part in parts]
    whole = made(name).survey(rounds[0], previous)
    scale = float(np.abs(whole).max()) or 1.0
    assert np.allclose(sum(surveys) / scale, whole / scale, rtol=0, atol=1e-12)


@STRATEGIES
@settings(max_examples=20)
@given(cohort=cohorts())
def test_equal_inputs_give_equal_bits_and_old_state_is_not_written_into(name, cohort):
    rounds, weights, previous = cohort
    aggregator, state = made(name), {}
    aggregator.fold(rounds[0], knowledge(name, rounds[0], weights, previous), previous, state)
    kept = dict(state)
    copies = {key: array.copy() for key, array in state.items()}
    known = knowledge(name, rounds[1], weights, previous)
    first = aggregator.fold(rounds[1], known, previous, state)
    again = aggregator.fold(rounds[1], known, previous, kept.copy())
    assert same([first], [again])
    assert all(same([kept[key]], [copies[key]]) for key in copies)


@STRATEGIES
@ARITHMETIC
@settings(max_examples=20)
@given(cohort=cohorts())
def test_where_everybody_agrees_with_the_model_it_stays(name, arithmetic, cohort):
    _, weights, previous = cohort
    models, _, _ = two_rounds(name, [[previous] * len(weights)] * 2, weights, previous, arithmetic=arithmetic)
    # In fixed point every number is known to so many bits below the largest. Below 2**-900 they are zero.
    tolerance = 0.0 if made(name).SUMS_CHANGES else max(1e-14 * np.abs(previous.astype(float)).max(), 2.0**-900)
    for model in models:
        assert (np.abs(model.astype(np.float64) - previous) <= tolerance).all()


@STRATEGIES
@settings(max_examples=40)
@given(cohort=cohorts(), seed=st.integers(0, 100))
def test_who_comes_first_does_not_change_a_bit(name, cohort, seed):
    rounds, weights, previous = cohort
    if name in PICKS:
        return
    order = np.random.default_rng(seed).permutation(len(weights))
    one, _, _ = two_rounds(name, rounds, weights, previous)
    shuffled = [[updates[n] for n in order] for updates in rounds]
    other, _, _ = two_rounds(name, shuffled, [weights[n] for n in order], previous)
    assert same(one, other)


@pytest.mark.parametrize("name", PICKS)
def test_krum_picks_the_same_updates_in_any_order(name):
    chance = np.random.default_rng(7)
    updates, previous = chance.normal(size=(9, 50)).astype(np.float32), np.zeros(50, np.float32)
    order = chance.permutation(9)
    one, other = (
        create(name).fold(list(came), knowledge(name, list(came), [1] * 9, previous), previous, {})
        for came in (updates, updates[order])
    )
    assert same([one], [other])


@pytest.mark.parametrize("name", BETWEEN)
@settings(max_examples=25)
@given(cohort=cohorts())
def test_the_model_lies_among_the_updates(name, cohort):
    rounds, weights, previous = cohort
    known = knowledge(name, rounds[0], weights, previous)
    model = made(name).fold(rounds[0], known, previous, {}).astype(float)
    stack = np.stack(rounds[0]).astype(float)
    slack = 1e-12 * np.abs(stack).max()
    assert (model >= stack.min(axis=0) - slack).all()
    assert (model <= stack.max(axis=0) + slack).all()


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
@ARITHMETIC
def test_twice_the_weight_is_the_same_update_twice(name, arithmetic):
    chance = np.random.default_rng(3)
    first, second, previous = chance.normal(size=(3, 50))

    def fold(updates, weights):
        return made(name).fold(updates, knowledge(name, updates, weights, previous, arithmetic), previous, {})

    doubled = fold([first, second], [2, 1])
    assert np.allclose(doubled, fold([first, first, second], [1, 1, 1]), rtol=1e-12, atol=1e-12)
    assert not np.allclose(doubled, fold([first, second], [1, 2]))


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=25)
@given(data=st.data(), more=st.integers(0, 4))
def test_liars_do_not_move_the_model_out_of_the_honest_updates(name, data, more):
    """From the fewest updates on: one of them, or as many as ``byzantine`` says, each with lies and a place of its own."""
    aggregator = create(name, ROBUST[name])
    count, liars = aggregator.fewest() + more, getattr(aggregator, "byzantine", 1)
    block = npst.arrays(np.float32, 3, elements=st.floats(-1, 1, width=32))
    honest = data.draw(st.lists(block, min_size=count - liars, max_size=count - liars))
    lies = data.draw(st.lists(st.integers(-9, 9).filter(bool), min_size=liars, max_size=liars, unique=True))
    updates = data.draw(st.permutations([*honest, *(np.full(3, lie * 1e6, np.float32) for lie in lies)]))
    known = Known((1,) * count, tuple(float(np.abs(update).max()) for update in updates), count)
    if aggregator.SURVEYS:
        known = replace(known, shares=aggregator.conclude(aggregator.survey(updates, honest[0]), known.weights))
    model = aggregator.fold(updates, known, honest[0], {}).astype(float)
    assert (model >= np.min(honest, axis=0) - 1e-6).all()
    assert (model <= np.max(honest, axis=0) + 1e-6).all()


@STRATEGIES
@ARITHMETIC
@pytest.mark.parametrize("dtype", numbers)
@settings(max_examples=10)
@given(data=st.data())
def test_from_any_finite_numbers_comes_a_finite_model_or_none(name, arithmetic, dtype, data):
    largest = float(np.finfo(dtype).max)
    finite = st.floats(-largest, largest, width=8 * np.dtype(dtype).itemsize)
    block = npst.arrays(dtype, 3, elements=st.sampled_from([largest, -largest]) | finite)
    previous, *updates = data.draw(st.lists(block, min_size=5, max_size=8))
    weights = [data.draw(st.integers(1, 2**53 - 1))] * len(updates)
    with suppress(SessionFailed):  # and no warning
        models, _, _ = two_rounds(name, [updates] * 2, weights, previous, arithmetic=arithmetic)
        assert np.isfinite(models).all()


@STRATEGIES
@pytest.mark.parametrize("dtype", numbers)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 64, 65, 70])
@pytest.mark.parametrize("weight", [1, 2**53 - 1])
def test_extremes_give_a_model_that_is_finite_and_among_them(name, dtype, count, weight):
    aggregator = made(name)
    if count < aggregator.fewest():
        return
    chance = np.random.default_rng(count)
    largest = float(np.finfo(dtype).max) / 256  # numpy's own sums of float64 would overflow
    scales = [0.0, np.finfo(dtype).tiny, 1.0, largest]
    # Adaptive steps square what they see, and momentum adds to it: for those the largest is none of them.
    scales = scales if name in (*BETWEEN, "norm_clipping", "scaffold") else scales[:3]
    for scale in scales:
        updates = [(chance.uniform(-1, 1, 64) * scale).astype(dtype) for _ in range(count)]
        weights = [int(w) for w in chance.integers(1, 1000, count)]
        weights[0] = weight
        previous = updates[-1]
        model = aggregator.fold(updates, knowledge(name, updates, weights, previous), previous, {})
        assert np.isfinite(model).all()
        if name in BETWEEN:
            assert (np.abs(model) <= np.abs(updates).max() * (1 + 1e-15)).all()
