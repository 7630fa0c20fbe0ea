"""Each strategy against numbers worked out by hand, and against numpy where numpy has it."""

import tracemalloc

import numpy as np
import pytest

from nevermined_fl.aggregation import create, distances
from nevermined_fl.aggregation.rule import Known
from nevermined_fl.errors import InvalidRequest, SessionFailed

ARITHMETIC = pytest.mark.parametrize("arithmetic", ["fixed", "float"])
KRUM = ((10, 7), (10, 11), (0, 8), (12, 9), (11, 7), (46, 37))
KRUM_SCORES = (25, 41, 332, 21, 23, 6037)


def block(*numbers, dtype=np.float32):
    return np.array(numbers, dtype)


def known(strategy, updates, weights, previous, *, arithmetic="fixed", members=0, extra="", **options):
    aggregator = create(strategy, options)
    before = float(abs(previous).max()) if aggregator.SUMS_CHANGES else 0.0
    peaks = tuple(float(abs(update).max()) + before for update in updates) if arithmetic == "fixed" else None
    shares = aggregator.conclude(aggregator.survey(updates, previous), weights) if aggregator.SURVEYS else None
    return Known(tuple(weights), peaks, members, shares, extra)


def fold(strategy, updates, weights, previous, state=None, *, arithmetic="fixed", members=0, extra="", **options):
    what = known(strategy, updates, weights, previous, arithmetic=arithmetic, members=members, extra=extra, **options)
    return create(strategy, options).fold(updates, what, previous, {} if state is None else state).tolist()


@ARITHMETIC
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_fedavg_and_fedprox_weigh_by_examples(strategy, arithmetic):
    updates = [block(2, 10), block(6, -20)]
    assert fold(strategy, updates, [1, 3], block(0, 0), arithmetic=arithmetic) == [5.0, -12.5]


@ARITHMETIC
def test_fedavg_sums_without_rounding_and_rounds_once(arithmetic):
    updates = [block(16777216), block(1), block(1)]  # 2^24 + 1 is no float32
    assert fold("fedavg", updates, [1, 1, 1], block(0), arithmetic=arithmetic) == [np.float32(16777218 / 3)]


def test_fedavgm_keeps_its_velocity():
    state = {}
    # Mean (2*1 + 6*3) / 4 = 5, step 1 - 5 = -4, v = -4, x = 1 + 0.5 * 4 = 3.
    first = fold("fedavgm", [block(2), block(6)], [1, 3], block(1), state, momentum=0.75, learning_rate=0.5)
    assert first == [3.0]
    assert state["momentum"].tolist() == [-4.0]
    # Mean 7, step 3 - 7 = -4, v = -3 - 4 = -7, x = 3 + 3.5.
    assert fold("fedavgm", [block(7)], [9], block(3), state, momentum=0.75, learning_rate=0.5) == [6.5]
    assert state["momentum"].tolist() == [-7.0]


@pytest.mark.parametrize(
    ("strategy", "options", "seconds"),
    [
        # Steps 4 and 2, tau^2 = 4: 0.5 * 4 + 0.5 * 16 = 10, then 5 + 0.5 * 4.
        ("fedadam", {"beta2": 0.5}, (10.0, 7.0)),
        # 4 < 16 grows by 0.5 * 16, then 12 > 4 shrinks by 0.5 * 4.
        ("fedyogi", {"beta2": 0.5}, (12.0, 10.0)),
        ("fedadagrad", {}, (20.0, 24.0)),
    ],
)
def test_adaptive_strategies_move_by_their_two_moments(strategy, options, seconds):
    state = {}
    options = {"learning_rate": 0.5, "beta1": 0.75, "tau": 2.0, **options}
    # The first moment: 0.25 * 4 = 1, then 0.75 * 1 + 0.25 * 2 = 1.25.
    first = fold(strategy, [block(5, dtype=float)], [3], block(1, dtype=float), state, **options)
    assert first == pytest.approx([1 + 0.5 / (seconds[0] ** 0.5 + 2)], rel=1e-14)
    assert (state["first"].tolist(), state["second"].tolist()) == ([1.0], [seconds[0]])
    again = fold(strategy, [block(first[0] + 2, dtype=float)], [3], block(*first, dtype=float), state, **options)
    assert again == pytest.approx([first[0] + 0.5 * 1.25 / (seconds[1] ** 0.5 + 2)], rel=1e-14)
    assert (state["first"], state["second"]) == (pytest.approx([1.25]), pytest.approx([seconds[1]]))


@ARITHMETIC
@pytest.mark.parametrize("strategy", ["fedadam", "fedyogi", "fedadagrad", "fedavgm"])
def test_a_weight_that_nobody_moved_stays_beside_one_that_is_huge(strategy, arithmetic):
    """What rounding leaves of it, divided by ``tau``, would move it in every round."""
    model, state = block(0.1, 9e5), {}
    options = {"momentum": 0.99} if strategy == "fedavgm" else {"tau": 1e-12}
    for _ in range(20):
        updates = [model + block(0, 900 * number) for number in (1, 2, 3)]
        model = block(*fold(strategy, updates, [40, 70, 100], model, state, arithmetic=arithmetic, **options))
    assert model[0] == np.float32(0.1)
    assert model[1] > 9e5


def test_scaffold_takes_plain_means_and_moves_its_control_variate_by_the_share_that_reported():
    # Model: mean 4 (5.6 by examples), 1 + 0.5 * 3. Control: 0.5 + (2 + 4) / 8, not / 2.
    assert fold("scaffold", [block(2), block(6)], [1, 9], block(1), members=8, learning_rate=0.5) == [2.5]
    changes = [block(2), block(4)]
    assert fold("scaffold", changes, [1, 9], block(0.5), members=8, extra="control", learning_rate=0.5) == [1.25]


def test_krum_takes_the_update_with_the_nearest_neighbours():
    updates = [block(*point) for point in KRUM]
    # Of n = 6 with f = 1 three neighbours count; sums of squares are in KRUM_SCORES.
    assert fold("krum", updates, [1, 1, 1, 1, 1, 1000], block(7, 7)) == list(KRUM[KRUM_SCORES.index(min(KRUM_SCORES))])


def test_multi_krum_takes_the_plain_mean_of_the_best():
    updates = [block(*point) for point in KRUM]
    best = sorted(range(6), key=KRUM_SCORES.__getitem__)
    for keep, count in ((2, 2), (3, 3), (0, 3)):
        expected = np.mean([KRUM[index] for index in best[:count]], axis=0).astype(np.float32)
        came = fold("multi_krum", updates, [1, 1, 1, 1, 1, 1000], block(7, 7), keep=keep)
        assert came == pytest.approx(expected.tolist(), rel=1e-7)


def test_krum_keeps_away_from_what_overflows():
    updates = [block(x, dtype=float) for x in (1, 1e300, 3, -1e300, 3.5, 4, 5)]
    assert fold("krum", updates, [1] * 7, block(0, dtype=float), byzantine=2) == [4.0]


def test_krum_holds_a_strip_of_each_update_and_finds_what_the_whole_says(monkeypatch):
    # Whole numbers, so that sums are exact in any order; of 50 float64 updates a strip of 16384 numbers is 131 kB.
    updates = np.random.default_rng(2).integers(-99, 99, (50, 4099)).astype(np.float32)
    previous = np.ones(4099, np.float32)
    monkeypatch.setattr(distances, "_STRIP", 16384)
    tracemalloc.start()
    found = distances.products(updates, previous)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    changes = updates.astype(float) - 1
    assert found.tolist() == (changes @ changes.T).tolist()
    assert most < 131_072 + 3 * found.nbytes + 20_000


def test_norm_clipping_shrinks_what_is_longer_than_the_norm():
    updates = [block(4, 5), block(1, 3)]  # changes (3, 4) of norm 5, halved, and (0, 2)
    assert fold("norm_clipping", updates, [3, 1], block(1, 1), norm=2.5) == [2.125, 3.0]
    assert fold("norm_clipping", updates, [3, 1], block(1, 1), norm=5) == fold("fedavg", updates, [3, 1], block(1, 1))


def test_one_huge_update_that_is_clipped_changes_the_others_by_no_more_than_the_norm():
    chance = np.random.default_rng(0)
    honest = [chance.normal(size=99).astype(np.float32) for _ in range(3)]
    liar = block(*[3e38] * 99)
    model = np.array(fold("norm_clipping", [*honest, liar], [1] * 4, honest[0], norm=100))
    expected = honest[0] + (sum(honest) - 3 * honest[0] + 100 / 99**0.5) / 4
    assert model == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 33, 64, 65, 70])
def test_median_and_trimmed_mean_are_numpys_bit_for_bit(dtype, count):
    chance = np.random.default_rng(count)
    updates = [chance.normal(size=501).astype(dtype) for _ in range(count)]
    updates[0][:100] = 0.0
    updates[-1][50:100] = -0.0
    weights, previous, stack = Known(tuple(range(1, count + 1))), np.zeros(501, dtype), np.stack(updates)
    middle = create("median").fold(updates, weights, previous, {})
    assert middle.dtype == dtype
    # Adding 0.0 changes no bit but the sign of -0.0, which in numpy's result depends on the order of the updates.
    assert middle.tobytes() == (np.median(stack, axis=0).astype(dtype) + dtype(0)).tobytes()
    mean = create("trimmed_mean", {"trim": 0.3}).fold(updates, weights, previous, {})
    cut = count * 3 // 10
    expected = np.sort(stack, axis=0)[cut : count - cut].mean(axis=0, dtype=np.float64).astype(dtype)
    assert mean.tobytes() == (expected + dtype(0)).tobytes()


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


@pytest.mark.parametrize(
    ("strategy", "options", "fewest"),
    [
        ("fedavg", {}, 1),
        ("median", {}, 3),
        ("trimmed_mean", {}, 5),
        ("trimmed_mean", {"trim": 0.1}, 10),
        ("trimmed_mean", {"trim": 0.3}, 4),  # 1.2 of four, 0.9 of three
        ("trimmed_mean", {"trim": 0.01}, 100),
        ("trimmed_mean", {"trim": 0.0001}, 10_000),
        ("krum", {}, 5),
        ("multi_krum", {}, 5),
        ("multi_krum", {"byzantine": 1, "keep": 2}, 5),
        ("multi_krum", {"byzantine": 1, "keep": 5}, 8),
        ("multi_krum", {"byzantine": 0, "keep": 1}, 3),
    ],
)
def test_a_robust_strategy_needs_as_many_updates_as_stand_up_to_a_liar(strategy, options, fewest):
    assert create(strategy, options).fewest() == fewest


def test_a_model_that_overflows_is_no_model():
    with pytest.raises(SessionFailed, match="numbers that float16 cannot"):
        fold("fedavgm", [block(60000, dtype=np.float16)], [1], block(-60000, dtype=np.float16), learning_rate=2)
    updates = [block(1e308, dtype=float), block(1e308, dtype=float)]
    with pytest.raises(SessionFailed, match="numbers that float64 cannot"):
        fold("fedavg", updates, [9, 9], block(0, dtype=float), arithmetic="float")


def test_whole_numbers_do_not_overflow_where_floats_do():
    updates = [block(1e308, dtype=float), block(1e308, dtype=float)]
    assert fold("fedavg", updates, [9, 2**53 - 1], block(0, dtype=float)) == [pytest.approx(1e308, rel=1e-15)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bulyan", {}, r"^strategy: expected one of fedavg, .*, got 'bulyan'"),
        ("krum", {"byzantine": 0.5}, r"^strategyOptions.byzantine: expected a whole number, got 0.5"),
        ("krum", {"byzantine": -1}, r"^strategyOptions.byzantine: expected a number 0 <= x < 5000"),
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
        ("trimmed_mean", {"trim": 0}, r"^strategyOptions.trim: expected a number 0.0001 <= x < 0.5, got 0"),
        ("trimmed_mean", {"trim": 10**400}, "^strategyOptions.trim.*, got int$"),
    ],
)
def test_a_wrong_strategy_or_option_is_refused_by_name(name, options, message):
    with pytest.raises(InvalidRequest, match=message):
        create(name, options)
