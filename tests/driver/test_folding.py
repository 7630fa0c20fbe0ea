"""Folding over files gives the bits of folding in memory, whatever the blocks, the threads and the wire's precision."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from nevermined_fl.aggregation import AGGREGATORS, create
from nevermined_fl.aggregation.rule import Known
from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.codecs.blocks import pieces
from nevermined_fl.driver import folding, work
from nevermined_fl.driver.distance import distance
from nevermined_fl.driver.folding import Given, fold
from nevermined_fl.errors import DecodeError, SessionFailed
from nevermined_fl.files import sha256_file

SHAPES = {"w": ((333, 401), np.float32), "d": ((70_001,), np.float64), "h": ((65_537,), np.float16)}
WEIGHTS = (3, 1, 7, 2, 5)
OPTIONS = {"norm_clipping": {"norm": 500.0}}  # of norms about 730: they are clipped


def random_model(rng, shapes=SHAPES):
    return {name: rng.normal(size=shape).astype(dtype) for name, (shape, dtype) in shapes.items()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The model before and five updates, in memory and in files."""
    folder = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(3)
    models = [random_model(rng) for _ in range(6)]
    paths = [folder / str(number) for number in range(6)]
    for path, model in zip(paths, models, strict=True):
        path.write_bytes(safetensors.dump(model))
    return models, paths


def given(paths, weights=WEIGHTS, peaks=(None,) * 5):
    return [Given(path, weight, peak) for path, weight, peak in zip(paths, weights, peaks, strict=True)]


def in_memory(name, models, states, members):
    """What one round gives, tensor by tensor."""
    aggregator = create(name, OPTIONS.get(name))
    before, *peaks = (max(float(np.abs(tensor).max()) for tensor in model.values()) for model in models)
    peaks = tuple(peak + before if aggregator.SUMS_CHANGES else peak for peak in peaks)
    known = Known(WEIGHTS, peaks, members)
    flat = {tensor: [model[tensor].ravel() for model in models] for tensor in SHAPES}
    if aggregator.SURVEYS:
        total = sum(aggregator.survey(blocks[1:], blocks[0]) for blocks in flat.values())
        known = replace(known, shares=aggregator.conclude(total, WEIGHTS))
    return {
        tensor: aggregator.fold(blocks[1:], known, blocks[0], states.setdefault(tensor, {})).reshape(SHAPES[tensor][0])
        for tensor, blocks in flat.items()
    }


@pytest.mark.parametrize("name", AGGREGATORS)
def test_folding_files_in_blocks_is_folding_in_memory(name, cohort, tmp_path):
    models, paths = cohort
    states, schema = {}, safetensors.schema_of(models[0])
    files = [tmp_path / f"state{number}" for number in range(3)]
    for before, after in ((files[0], files[1]), (files[1], files[2])):
        digest = fold(
            create(name, OPTIONS.get(name)),
            schema,
            members=9,
            previous=paths[0],
            updates=given(paths[1:]),
            into=tmp_path / "new",
            state_before=before,
            state_after=after,
        )
        expected = in_memory(name, models, states, members=9)
        came = safetensors.load((tmp_path / "new").read_bytes())
        if name == "norm_clipping":  # norms are added up by blocks: their last bit may differ, and a model's with it
            assert all(np.allclose(came[key], expected[key], rtol=1e-6, atol=1e-12) for key in SHAPES)
        else:
            assert all(came[key].tobytes() == expected[key].tobytes() for key in SHAPES)
        assert digest == sha256_file(tmp_path / "new")
    assert files[2].exists() == bool(create(name).STATE)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_threads_and_the_order_of_a_files_blocks_change_no_bit(name, cohort, tmp_path, monkeypatch):
    models, paths = cohort
    digests = set()
    monkeypatch.setattr(work, "_WORTH_THREADS", 0)
    for threads in (1, 4):
        monkeypatch.setattr(work, "_THREADS", threads)
        digests.add(one_fold(name, models, paths, given(paths[1:]), tmp_path))
    assert len(digests) == 1


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_survey_of_few_numbers_at_a_time_finds_the_same(precision, cohort, tmp_path, monkeypatch):
    models, paths = cohort
    schema = safetensors.schema_of(models[0])
    updates = paths[1:]
    if precision != "f32":
        updates = [as_change(path, paths[0], schema, precision, tmp_path / path.name) for path in updates]
    monkeypatch.setattr(work, "_WORTH_THREADS", 0)
    digests = set()
    for threads, numbers in ((1, 4 << 20), (4, 4 << 20), (1, 5 * 3000), (4, 5 * 3000), (4, 5)):
        monkeypatch.setattr(work, "_THREADS", threads)
        monkeypatch.setattr(folding, "_SURVEYED", numbers)
        digests.add(one_fold("multi_krum", models, paths, given(updates), tmp_path, precision=precision))
    assert len(digests) == 1


def test_a_small_model_is_folded_in_the_thread_that_is_there(cohort, tmp_path, monkeypatch):
    models, paths = cohort
    monkeypatch.setattr(work, "ThreadPoolExecutor", None)  # whoever asks for one fails
    one_fold("median", models, paths, given(paths[1:4], (3, 1, 7), (None,) * 3), tmp_path)


def one_fold(name, models, paths, updates, folder, **options):
    return fold(
        create(name, OPTIONS.get(name)),
        safetensors.schema_of(models[0]),
        previous=paths[0],
        updates=updates,
        into=folder / "new",
        state_before=folder / "none",
        state_after=folder / "state",
        **options,
    )


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "scaffold"])
def test_the_order_of_updates_changes_no_bit(name, cohort, tmp_path):
    models, paths = cohort
    updates = given(paths[1:])
    orders = (updates, updates[::-1], [updates[index] for index in (2, 0, 4, 1, 3)])
    assert len({one_fold(name, models, paths, order, tmp_path) for order in orders}) == 1


def test_a_peak_that_was_seen_before_gives_the_bits_of_one_that_is_looked_for(cohort, tmp_path):
    models, paths = cohort
    peaks = [max(float(np.abs(tensor).max()) for tensor in model.values()) for model in models[1:]]
    seen = given(paths[1:], peaks=peaks)
    assert one_fold("fedavg", models, paths, seen, tmp_path) == one_fold(
        "fedavg", models, paths, given(paths[1:]), tmp_path
    )


@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_the_peak_of_changes_bounds_the_weights_that_they_make(precision, cohort, tmp_path):
    models, paths = cohort
    schema = safetensors.schema_of(models[0])
    updates = [as_change(path, paths[0], schema, precision, tmp_path / path.name) for path in paths[1:]]
    peaks = [max(float(np.abs(m[k].astype(float) - models[0][k]).max()) * 1.01 for k in SHAPES) for m in models[1:]]
    folded = []
    for known in (peaks, [None] * 5):
        one_fold("fedavg", models, paths, given(updates, peaks=known), tmp_path, precision=precision)
        folded.append(safetensors.load((tmp_path / "new").read_bytes()))
    # Another bound may mean another unit, far below what the change's own rounding is.
    assert all(np.abs(folded[0][key].astype(float) - folded[1][key]).max() < 0.04 for key in SHAPES)
    assert np.mean(folded[0]["w"] == folded[1]["w"]) > 0.999


def test_floats_differ_from_whole_numbers_by_rounding_alone(cohort, tmp_path):
    models, paths = cohort
    found = []
    for arithmetic in ("fixed", "float"):
        one_fold("fedavg", models, paths, given(paths[1:]), tmp_path, arithmetic=arithmetic)
        found.append(safetensors.load((tmp_path / "new").read_bytes()))
    exact = {
        key: sum(w * m[key].astype(np.longdouble) for w, m in zip(WEIGHTS, models[1:], strict=True)) / 18
        for key in SHAPES
    }
    for model in found:
        assert np.abs(model["d"] - exact["d"]).max() < 1e-14
        assert (model["w"] == exact["w"].astype(np.float32)).mean() > 0.999999


def as_change(path, before, schema, precision, into):
    """The file that a participant would send."""
    layout = delta.Layout(schema, precision)
    header = safetensors.header_bytes(layout.schema)
    raw = bytearray(safetensors.file_size(layout.schema))
    raw[: len(header)] = header
    old, new = before.read_bytes(), path.read_bytes()
    for piece in pieces(schema, 4096):
        span = slice(piece.position, piece.position + piece.size())
        blocks = (safetensors.as_array(body[span], piece.dtype) for body in (old, new))
        encoded, _ = delta.encode(*blocks, None, precision)
        raw[slice(*layout.changes(piece))] = encoded.numbers.tobytes()
        raw[slice(*layout.scales(piece))] = encoded.scales.tobytes()
    into.write_bytes(raw)
    return into


@pytest.mark.parametrize("precision", ["f16", "bf16", "int8"])
def test_changes_make_the_same_model_on_both_sides_and_leave_nothing_behind(precision, cohort, tmp_path):
    models, paths = cohort
    schema = safetensors.schema_of(models[0])
    layout = delta.Layout(schema, precision)
    updates = [as_change(path, paths[0], schema, precision, tmp_path / path.name) for path in paths[1:]]
    came = [safetensors.load(rebuilt(paths[0], update, schema, layout, precision)) for update in updates]
    exact = {k: sum(w * m[k].astype(float) for w, m in zip(WEIGHTS, came, strict=True)) / 18 for k in SHAPES}
    previous, states, found = paths[0], [tmp_path / "none"], []
    for number in range(3):
        into, change = tmp_path / f"new{number}", tmp_path / f"change{number}"
        states.append(tmp_path / f"state{number}")
        digest = fold(
            create("fedavg"),
            schema,
            precision=precision,
            previous=previous,
            updates=given(updates),
            into=into,
            change=change,
            state_before=states[-2],
            state_after=states[-1],
        )
        assert digest == sha256_file(into)
        assert rebuilt(previous, change, schema, layout, precision) == into.read_bytes()
        model = safetensors.load(into.read_bytes())
        found.append(model["w"] - exact["w"])
        if number == 0:
            # What the change left out is in the state: base, change and residual make the mean.
            kept = safetensors.load(states[-1].read_bytes())["#residual"]
            flat = np.concatenate([model[key].ravel().astype(float) for key in ("d", "w", "h")])
            whole = np.concatenate([exact[key].ravel() for key in ("d", "w", "h")])
            halves = 65_537  # h is rounded to float16
            assert np.abs(flat + kept - whole)[:-halves].max() < 1e-6
            assert np.abs(flat + kept - whole)[-halves:].max() < 2e-3
            assert change.stat().st_size < into.stat().st_size / (2 if precision == "int8" else 1.9)
    # Three times the same updates: what one change leaves out the next brings, so that together they are nearer.
    assert np.abs(sum(found) / 3).mean() < np.abs(found[0]).mean() / 2


def rebuilt(base, change, schema, layout, precision):
    raw, changes = bytearray(base.read_bytes()), change.read_bytes()
    assert changes.startswith(safetensors.header_bytes(layout.schema))
    for piece in pieces(schema, 2048):
        span = slice(piece.position, piece.position + piece.size())
        numbers = safetensors.as_array(changes[slice(*layout.changes(piece))], layout.dtype)
        scales = safetensors.as_array(changes[slice(*layout.scales(piece))], "F32")
        decoded = delta.decode(delta.Encoded(numbers, scales), precision)
        raw[span] = delta.apply(safetensors.as_array(bytes(raw[span]), piece.dtype), decoded).tobytes()
    return bytes(raw)


def test_scaffold_moves_the_model_and_its_control_variate_each_by_its_own_rule(tmp_path):
    rng = np.random.default_rng(8)
    # "control/other" is a tensor of the model's own: nothing is called "other".
    own = {"w": ((300, 7), np.float32), "z": ((50_000,), np.float32), "control/other": ((5,), np.float32)}
    shapes = own | {f"control/{name}": kind for name, kind in own.items()}
    models = [random_model(rng, shapes) for _ in range(3)]
    paths = [tmp_path / str(number) for number in range(3)]
    for path, model in zip(paths, models, strict=True):
        path.write_bytes(safetensors.dump(model))
    fold(
        create("scaffold", {"learning_rate": 0.5}),
        safetensors.schema_of(models[0]),
        members=8,
        previous=paths[0],
        updates=given(paths[1:], (9, 1), (None, None)),
        into=tmp_path / "new",
        state_before=tmp_path / "none",
        state_after=tmp_path / "state",
    )
    came = safetensors.load((tmp_path / "new").read_bytes())
    before, one, other = models
    for name in own:
        assert came[name] == pytest.approx(before[name] / 2 + (one[name] + other[name]) / 4, abs=1e-6)
        beside = f"control/{name}"
        assert came[beside] == pytest.approx(before[beside] + (one[beside] + other[beside]) / 8, abs=1e-6)


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_the_distance_of_an_update_is_its_l2_norm(precision, cohort, tmp_path):
    models, paths = cohort
    schema = safetensors.schema_of(models[0])
    expected = sum(float(((models[1][k].astype(float) - models[0][k]) ** 2).sum()) for k in SHAPES) ** 0.5
    update = paths[1] if precision == "f32" else as_change(paths[1], paths[0], schema, precision, tmp_path / "change")
    slack = 1e-12 if precision == "f32" else 1e-3
    assert distance(paths[0], update, schema, precision) == {"": pytest.approx(expected, rel=slack)}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_what_travels_beside_the_model_has_a_distance_of_its_own(precision, tmp_path):
    """It is a change as it stands, whatever the model's side of it."""
    for name, (numbers, control) in {"a": (1.0, 5.0), "b": (3.0, 9.0)}.items():
        tensors = {"w": np.full(25, numbers, np.float32), "control/w": np.full(25, control, np.float32)}
        (tmp_path / name).write_bytes(safetensors.dump(tensors))
    schema = safetensors.schema_of(tensors)
    update = tmp_path / "b"
    if precision != "f32":
        update = as_change(update, tmp_path / "a", schema, precision, tmp_path / "change")
    assert distance(tmp_path / "a", update, schema, precision, ("control",)) == {"": 10.0, "control": 45.0}
    together = pytest.approx((25 * (4 + 16)) ** 0.5)
    assert distance(tmp_path / "a", update, schema, precision) == {"": together}


def test_a_scale_counts_with_the_numbers_of_its_own_group_alone(tmp_path):
    """One update's huge scale that multiplies nothing would else make the unit so coarse that every weight is zero."""
    before = {"w": np.linspace(-1, 1, 3000, dtype=np.float32)}
    schema = safetensors.schema_of(before)
    (tmp_path / "before").write_bytes(safetensors.dump(before))
    wire = delta.wire_schema(schema, "int8")
    numbers, scales = np.zeros(3000, np.int8), np.full(3, 1e-5, np.float32)
    numbers[2000:], scales[0] = -128, 3e38
    for name, kept in (("honest", np.full(3, 1e-5, np.float32)), ("odd", scales)):
        (tmp_path / name).write_bytes(safetensors.header_bytes(wire) + kept.tobytes() + numbers.tobytes())
    updates = [Given(tmp_path / name, 1, 127 * 3e38) for name in ("honest", "odd")]
    models = []
    for arithmetic in ("fixed", "float"):
        one_fold("fedavg", [before], [tmp_path / "before"], updates, tmp_path, precision="int8", arithmetic=arithmetic)
        models.append(safetensors.load((tmp_path / "new").read_bytes())["w"])
    assert np.abs(models[0] - models[1]).max() < 1e-6
    assert distance(tmp_path / "before", tmp_path / "odd", schema, "int8")[""] < 1


def test_changes_count_alike_whatever_the_sign_of_their_scale(tmp_path):
    """A peak that is told too small would let the sum of whole numbers wrap."""
    before = {"w": np.full(1024, 0.01, np.float32)}
    schema = safetensors.schema_of(before)
    (tmp_path / "before").write_bytes(safetensors.dump(before))
    wire = safetensors.header_bytes(delta.wire_schema(schema, "int8"))
    models = set()
    for sign in (1, -1):
        body = np.float32(sign * 3 / 127).tobytes() + np.full(1024, sign * 127, np.int8).tobytes()
        (tmp_path / "update").write_bytes(wire + body)
        updates = [Given(tmp_path / "update", 1000)]
        models.add(one_fold("fedavg", [before], [tmp_path / "before"], updates, tmp_path, precision="int8"))
    assert len(models) == 1
    assert safetensors.load((tmp_path / "new").read_bytes())["w"] == pytest.approx(3.01)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_model_of_the_largest_numbers_takes_changes(precision, tmp_path):
    largest = np.finfo(np.float64).max
    before = {"w": np.array([largest, -largest, 1e300])}
    schema = safetensors.schema_of(before)
    (tmp_path / "before").write_bytes(safetensors.dump(before))
    as_change(tmp_path / "before", tmp_path / "before", schema, precision, tmp_path / "change")
    updates = [Given(tmp_path / "change", 1000, 0.0)] * 3
    one_fold("fedavg", [before], [tmp_path / "before"], updates, tmp_path, precision=precision)
    assert safetensors.load((tmp_path / "new").read_bytes())["w"] == pytest.approx(before["w"], rel=1e-6)


@pytest.mark.parametrize("kind", ["beside", "cut"])
def test_a_huge_number_that_moves_no_weight_coarsens_no_weights_unit(kind, tmp_path):
    rng = np.random.default_rng(3)
    model = {"w": rng.normal(size=3000).astype(np.float32), "h": np.zeros(1, np.float16)}
    model |= {f"control/{name}": np.zeros_like(tensor) for name, tensor in model.items()}
    schema = safetensors.schema_of(model)
    odd = model | {"control/w": np.full(3000, 3e38, np.float32)}
    for name, tensors in (("before", model), ("odd", odd)):
        (tmp_path / name).write_bytes(safetensors.dump(tensors))
    strategy, precision, peak = "scaffold", "f32", 3e38
    if kind == "cut":
        strategy, precision = "fedavg", "bf16"
        changes = np.zeros(sum(tensor.size for tensor in model.values()), np.float32)
        layout = delta.Layout(schema, precision)
        changes[next(piece.first for piece in pieces(schema, 1024) if piece.dtype == "F16")] = 3e38
        encoded, _ = delta.encode(np.zeros_like(changes), changes, None, precision)
        (tmp_path / "odd").write_bytes(safetensors.header_bytes(layout.schema) + encoded.numbers.tobytes())
    one_fold(
        strategy,
        [model],
        [tmp_path / "before"],
        [Given(tmp_path / "odd", 1, peak)] * 2,
        tmp_path,
        precision=precision,
    )
    new = safetensors.load((tmp_path / "new").read_bytes())["w"]
    assert np.abs(new - model["w"]).max() < 1e-6


def test_too_few_updates_for_a_strategy_end_the_session(cohort, tmp_path):
    models, paths = cohort
    with pytest.raises(SessionFailed, match="4 updates came, the strategy needs 5"):
        one_fold("krum", models, paths, given(paths[1:])[:4], tmp_path)
    assert not (tmp_path / "new").exists()


def test_a_fold_that_fails_leaves_nothing_half_done(cohort, tmp_path):
    models, paths = cohort
    short = tmp_path / "short"
    short.write_bytes(paths[1].read_bytes()[:-500_000])
    updates = [Given(short, 1, 9.0), *given(paths[2:], WEIGHTS[1:], (9.0,) * 4)]
    with pytest.raises(DecodeError, match="shorter than its header says"):
        one_fold("fedavgm", models, paths, updates, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["short"]
    assert threading.active_count() == 1
