"""Each strategy against numbers worked out by hand, and against numpy where numpy has it."""

import numpy as np
import pytest

from nevermined_fl.aggregation import create
from nevermined_fl.errors import InvalidRequest, SessionFailed


def block(*numbers, dtype=np.float32):
    return np.array(numbers, dtype)


def fold(strategy, updates, weights, previous, state=None, **options):
    return create(strategy, options).fold(updates, weights, previous, {} if state is None else state).tolist()


def test_fedavg_weighs_by_examples():
    updates = [block(2, 10), block(6, -20)]
    assert fold("fedavg", updates, [1, 3], block(0, 0)) == [5.0, -12.5]


def test_fedavg_sums_in_double_precision_and_rounds_once():
    updates = [block(16777216), block(1), block(1)]  # 2^24 + 1 is no float32
    assert fold("fedavg", updates, [1, 1, 1], block(0)) == [np.float32(16777218 / 3)]


def test_fedavgm_keeps_its_velocity():
    state = {}
    # Mean (2*1 + 6*3) / 4 = 5, step 1 - 5 = -4, v = -4, x = 1 + 0.5 * 4 = 3.
    first = fold("fedavgm", [block(2), block(6)], [1, 3], block(1), state, momentum=0.75, learning_rate=0.5)
    assert first == [3.0]
    assert state["momentum"].tolist() == [-4.0]
    # Mean 7, step 3 - 7 = -4, v = -3 - 4 = -7, x = 3 + 3.5.
    assert fold("fedavgm", [block(7)], [9], block(3), state, momentum=0.75, learning_rate=0.5) == [6.5]
    assert state["momentum"].tolist() == [-7.0]


def test_fedadam_adapts_each_coordinate():
    state = {}
    options = {"learning_rate": 0.5, "beta1": 0.75, "beta2": 0.5, "tau": 2.0}
    # Delta = mean - x = 4; first = 0.25 * 4 = 1; second = 0.5 * 2^2 + 0.5 * 16 = 10; x = 1 + 0.5 / (sqrt(10) + 2).
    after = create("fedadam", options).fold([block(5, dtype=float)], [3], block(1, dtype=float), state)
    assert after == pytest.approx([1 + 0.5 / (10**0.5 + 2)], rel=1e-15)
    # Delta = 2; first = 0.75 + 0.5 = 1.25; second = 5 + 2 = 7.
    again = create("fedadam", options).fold([after + 2], [3], after, state)
    assert again == pytest.approx(after + 0.5 * 1.25 / (7**0.5 + 2), rel=1e-15)
    assert (state["first"].tolist(), state["second"].tolist()) == ([1.25], [7.0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10])
def test_median_and_trimmed_mean_are_numpys_bit_for_bit(dtype, count):
    chance = np.random.default_rng(count)
    updates = [chance.normal(size=501).astype(dtype) for _ in range(count)]
    updates[0][:100] = 0.0
    weights, previous, stack = list(range(1, count + 1)), np.zeros(501, dtype), np.stack(updates)
    middle = create("median").fold(updates, weights, previous, {})
    assert middle.dtype == dtype
    assert middle.tobytes() == np.median(stack, axis=0).astype(dtype).tobytes()
    mean = create("trimmed_mean", {"trim": 0.3}).fold(updates, weights, previous, {})
    cut = count * 3 // 10
    expected = np.sort(stack, axis=0)[cut : count - cut].mean(axis=0, dtype=np.float64).astype(dtype)
    assert mean.tobytes() == expected.tobytes()


def test_median_stands_up_to_one_liar_of_three():
    liar = block(3e38)
    assert fold("median", [block(2), liar, block(6)], [1, 1_000_000, 1], block(0)) == [6.0]
    assert fold("median", [block(2), -liar, block(6), block(8)], [1, 1, 1, 1], block(0)) == [4.0]


def test_trimmed_mean_cuts_on_both_sides():
    updates = [block(-1000), block(2), block(3), block(7), block(900)]
    assert fold("trimmed_mean", updates, [1] * 5, block(0), trim=0.2) == [4.0]
    assert fold("trimmed_mean", updates, [1] * 5, block(0), trim=0.19) == [pytest.approx(-17.6)]


def test_trim_is_the_decimal_of_the_plan():
    updates = [block(float(n**2)) for n in range(100)]  # floor(0.29 * 100) is 28 in floating point
    assert fold("trimmed_mean", updates, [1] * 100, block(0), trim=0.29) == [
        np.float32(np.mean([n**2 for n in range(29, 71)]))
    ]


def test_a_model_that_overflows_is_no_model():
    with pytest.raises(SessionFailed, match="numbers that float16 cannot"):
        fold("fedavgm", [block(60000, dtype=np.float16)], [1], block(-60000, dtype=np.float16), learning_rate=2)
    with pytest.raises(SessionFailed, match="numbers that float64 cannot"):
        fold("fedavg", [block(1e308, dtype=float), block(1e308, dtype=float)], [9, 9], block(0, dtype=float))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("krum", {}, r"^strategy: expected one of fedavg, .*, got 'krum'"),
        ("", {}, "^strategy"),
        ("fedavg", {"momentum": 0.5}, "^strategyOptions: fedavg knows none, got 'momentum'"),
        ("fedavgm", {"LIMITS": 0.5}, "^strategyOptions: fedavgm knows learning_rate, momentum, got 'LIMITS'"),
        ("fedavgm", {"momentum": 1.0}, r"^strategyOptions.momentum: expected a number 0 <= x < 1, got 1.0"),
        ("fedavgm", {"momentum": -0.1}, "^strategyOptions.momentum"),
        ("fedavgm", {"learning_rate": 0}, "^strategyOptions.learning_rate"),
        ("fedadam", {"tau": float("nan")}, "^strategyOptions.tau"),
        ("fedadam", {"tau": "0.1"}, "^strategyOptions.tau"),
        ("fedadam", {"tau": True}, "^strategyOptions.tau"),
        ("trimmed_mean", {"trim": 0.5}, "^strategyOptions.trim"),
        ("trimmed_mean", {"trim": 10**400}, "^strategyOptions.trim.*, got int$"),
    ],
)
def test_a_wrong_strategy_or_option_is_refused_by_name(name, options, message):
    with pytest.raises(InvalidRequest, match=message):
        create(name, options)
