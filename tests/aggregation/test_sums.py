"""Fixed point sums against fractions, which know no rounding."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nevermined_fl.aggregation import sums

FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
FLOAT64 = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.integers(1, 2**53 - 1) | st.integers(1, 1000)


@st.composite
def columns(draw):
    """One coordinate of up to 70 updates, their weights, and peaks that are theirs or larger."""
    count = draw(st.integers(1, 7) | st.just(70))
    kind = draw(st.sampled_from([FLOAT32, FLOAT64]))
    values = draw(st.lists(kind, min_size=count, max_size=count))
    weights = draw(st.lists(WEIGHTS, min_size=count, max_size=count))
    larger = draw(st.sampled_from([0.0, 1.0, 1e38]))
    return values, weights, [max(abs(value), larger) for value in values]


def as_blocks(values):
    return [np.array([value, 0.0, -value]) for value in values]


@settings(max_examples=150)
@given(column=columns())
@example(column=([0.0, 0.0], [1, 2], [0.0, 0.0]))
@example(column=([1e38] * 70, [2**53 - 1] * 70, [1e38] * 70))
@example(column=([1.7e308] * 3, [2**53 - 1, 1, 1], [1.7e308] * 3))
@example(column=([5e-324] * 3, [1, 1, 2**53 - 1], [5e-324] * 3))
@example(column=([0.5, 1.5, -0.5], [1, 1, 1], [1e15, 1e15, 1e15]))
def test_sums_are_those_of_fractions_and_never_overflow(column):
    values, weights, peaks = column
    unit = sums.exponent(peaks, weights)
    total = sums.integers(as_blocks(values), weights, unit)
    terms = [round(Fraction(value * math.ldexp(weight, unit))) for value, weight in zip(values, weights, strict=True)]
    assert all(abs(term) <= 2**51 for term in terms)
    assert abs(sum(terms)) < 2**63
    assert total.tolist() == [sum(terms), 0, -sum(terms)]
    mean = sums.real(total, math.fsum(weights), unit)
    exact = sum(Fraction(v) * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    # Half a unit per update and an eighth that the product lost before; then the sum of weights and the division.
    slack = Fraction(5, 8) * len(values) * Fraction(2) ** -unit / sum(weights) + abs(exact) / 2**51
    assert np.isfinite(mean).all()
    assert abs(Fraction(float(mean[0])) - exact) <= slack


@settings(max_examples=50)
@given(column=columns(), cut=st.integers(0, 70), seed=st.integers(0, 1000))
def test_any_order_and_any_grouping_gives_the_same_integers(column, cut, seed):
    values, weights, peaks = column
    unit = sums.exponent(peaks, weights)
    blocks = as_blocks(values)
    whole = sums.integers(blocks, weights, unit)
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = sums.integers([blocks[i] for i in order], [weights[i] for i in order], unit)
    assert whole.tolist() == shuffled.tolist()
    parts = [order[:cut], order[cut:]]
    partial = [sums.integers([blocks[i] for i in p], [weights[i] for i in p], unit) for p in parts if len(p)]
    assert whole.tolist() == sum(partial).tolist()


def test_the_unit_is_the_finest_that_fits():
    # 10 < 2^4 and 3 < 2^2: 51 - 6 bits for the fraction; a hundred thousand terms leave fewer.
    assert sums.exponent([10.0, 1.0], [3.0, 3.0]) == 45
    assert sums.exponent([10.0] * 100_000, [3.0] * 100_000) == 62 - 17 - 6
    # A huge number that counts for nothing, or for little, coarsens nothing.
    assert sums.exponent([10.0, 1e38], [3.0, 0.0]) == 45
    assert sums.exponent([10.0, 2.0**120], [3.0, 2.0**-120]) == 45


def test_a_million_small_updates_beside_one_large_are_not_lost():
    blocks = [np.array([1.0], np.float32), *[np.array([1e-7], np.float32)] * 5]
    fixed = sums.weighted_mean(blocks, [1] * 6, [1.0] * 6)
    assert abs(fixed[0] - (1 + 5 * float(np.float32(1e-7))) / 6) < 1e-15


@pytest.mark.parametrize("count", [1, 2, 3, 64])
@pytest.mark.parametrize("weight", [1, 3, 2**53 - 1])
def test_a_mean_of_the_largest_numbers_is_the_largest_number(count, weight):
    largest = np.finfo(np.float64).max
    blocks = [np.array([largest, -largest, 1.0])] * count
    found = sums.weighted_mean(blocks, [weight] * count, [largest] * count)
    assert found[:2].tolist() == pytest.approx([largest, -largest], rel=1e-13)
    assert np.isfinite(found).all()
