"""Changes between models: what crosses the wire, and that both sides make the same model of it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.codecs.blocks import pieces
from nevermined_fl.codecs.schema import TensorSchema

CHANGES = ("f16", "bf16", "int8")
SCHEMA = (TensorSchema("w", "F32", (2500, 2)), TensorSchema("d", "F64", (1500,)), TensorSchema("h", "F16", (7,)))


def block(*numbers, dtype=np.float32):
    return np.array(numbers, dtype)


def sent(previous, updated, precision, residual=None):
    encoded, left = delta.encode(previous, updated, residual, precision)
    return encoded, delta.apply(previous, delta.decode(encoded, precision)), left


def test_int8_by_hand():
    # The largest change, 2.54, is 127 steps of 0.02; 0.05 is 2.5 steps, to even 2; 0.031 is 1.55 steps.
    previous, updated = np.zeros(4), np.array([-2.54, 0.05, 0.031, 0.0])
    encoded, after, left = sent(previous, updated, "int8")
    assert encoded.numbers.tolist() == [-127, 2, 2, 0]
    assert encoded.scales == pytest.approx([0.02], rel=1e-6)
    assert after == pytest.approx([-2.54, 0.04, 0.04, 0.0], rel=1e-6)
    assert left == pytest.approx([0.0, 0.01, -0.009, 0.0], abs=1e-7)


def test_bf16_by_hand():
    # Seven bits after the first: 1 + 1/128 is one, 1 + 1/256 is between two and goes to even, 1 + 3/256 too.
    encoded, _, left = sent(np.zeros(4), np.array([1 + 1 / 128, 1 + 1 / 256, 1 + 3 / 256, -3e38]), "bf16")
    assert delta.decode(encoded, "bf16")[:3].tolist() == [1 + 1 / 128, 1.0, 1 + 4 / 256]
    assert left[:3].tolist() == [0.0, 1 / 256, -1 / 256]
    assert encoded.numbers.dtype == np.uint16


def test_f16_by_hand():
    encoded, after, left = sent(block(1, 1, 1), block(1 + 2**-11, 3, 70001), "f16")
    assert encoded.numbers.tolist() == [2**-11, 2.0, 65504.0]
    assert (after.tolist(), left.tolist()) == ([1 + 2**-11, 3.0, 65505.0], [0.0, 0.0, 4496.0])


@pytest.mark.parametrize("precision", CHANGES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@settings(max_examples=20)
@given(data=st.data())
def test_whatever_is_finite_stays_finite(precision, dtype, data):
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=8 * np.dtype(dtype).itemsize)
    arrays = npst.arrays(dtype, data.draw(st.sampled_from([1, 3, 1025])), elements=numbers, fill=st.just(dtype(0)))
    previous, updated = data.draw(arrays), data.draw(arrays)
    updated = np.resize(updated, previous.shape)
    encoded, after, left = sent(previous, updated, precision)
    assert after.dtype == dtype
    assert left.dtype == np.float32
    assert np.isfinite(after).all()
    assert np.isfinite(left).all()
    assert np.isfinite(delta.decode(encoded, precision)).all()
    again, later, _ = sent(after, updated, precision, left)
    assert np.isfinite(later).all()
    assert np.isfinite(delta.decode(again, precision)).all()


def test_hostile_scales_give_a_finite_model():
    encoded = delta.Encoded(np.full(3, -127, np.int8), block(3.4e38))
    assert np.isfinite(delta.apply(block(-3e38, 0, 3e38), delta.decode(encoded, "int8"))).all()


@settings(max_examples=100)
@given(data=st.data(), count=st.sampled_from([1, 3, 1024, 1025, 2048]))
def test_no_int8_change_is_larger_than_their_peak_whatever_the_bytes(data, count):
    numbers = data.draw(npst.arrays(np.int8, count, fill=st.integers(-128, 127)))
    scale = st.floats(allow_nan=False, allow_infinity=False, width=32)
    encoded = delta.Encoded(numbers, data.draw(npst.arrays(np.float32, -(-count // delta.GROUP), elements=scale)))
    assert delta.peak(encoded) == np.abs(delta.decode(encoded, "int8")).max()


@pytest.mark.parametrize("precision", CHANGES)
def test_error_feedback_makes_up_for_what_rounding_took(precision):
    chance = np.random.default_rng(5)
    there = model = chance.normal(size=3000).astype(np.float32)
    forgetful, left = model, None
    for _ in range(40):
        step = chance.normal(scale=1e-3, size=3000).astype(np.float32) + np.float32(1e-5)
        there = there + step
        _, model, left = sent(model, model + step, precision, left)
        _, forgetful, _ = sent(forgetful, forgetful + step, precision)
    assert np.abs(model - there).max() < 5e-5
    assert np.abs(model - there).mean() < np.abs(forgetful - there).mean() / (1 if precision == "f16" else 1.5)


@pytest.mark.parametrize("precision", CHANGES)
@settings(max_examples=20)
@given(groups=st.integers(0, 3), rest=st.integers(1, 1024), cut=st.integers(1, 3))
def test_blocks_that_begin_at_groups_give_the_bits_of_the_whole(precision, groups, rest, cut):
    count = groups * delta.GROUP + rest
    chance = np.random.default_rng(count)
    previous, updated = chance.normal(size=(2, count)).astype(np.float32)
    whole, after, left = sent(previous, updated, precision)
    size = cut * delta.GROUP
    parts = [sent(previous[i : i + size], updated[i : i + size], precision) for i in range(0, count, size)]
    assert np.concatenate([part.numbers for part, _, _ in parts]).tobytes() == whole.numbers.tobytes()
    assert np.concatenate([part.scales for part, _, _ in parts]).tobytes() == whole.scales.tobytes()
    assert np.concatenate([part for _, part, _ in parts]).tobytes() == after.tobytes()
    assert np.concatenate([part for _, _, part in parts]).tobytes() == left.tobytes()


def test_the_schema_of_what_crosses_the_wire():
    numbers = 1500 + 5000 + 7
    assert delta.wire_schema(SCHEMA, "f32") == SCHEMA
    assert delta.wire_schema(SCHEMA, "bf16") == (TensorSchema("#changes", "BF16", (numbers,)),)
    # Groups start anew with each dtype: 2 + 5 + 1.
    expected = {TensorSchema("#changes", "I8", (numbers,)), TensorSchema("#scales", "F32", (8,))}
    assert set(delta.wire_schema(SCHEMA, "int8")) == expected
    assert delta.residual_schema(SCHEMA) == (TensorSchema("#residual", "F32", (numbers,)),)
    assert safetensors.file_size(delta.wire_schema(SCHEMA, "int8")) < safetensors.file_size(SCHEMA) / 4


@pytest.mark.parametrize("precision", CHANGES)
@pytest.mark.parametrize("count", [1024, 4096, 65536])
def test_pieces_fill_a_change_file_without_gap_or_overlap(precision, count):
    layout = delta.Layout(SCHEMA, precision)
    spans = [layout.changes(piece) for piece in pieces(SCHEMA, count)]
    spans += [layout.scales(piece) for piece in pieces(SCHEMA, count) if precision == "int8"]
    ends = [len(safetensors.header_bytes(layout.schema))]
    for begin, end in sorted(spans):
        assert begin == ends[-1]
        ends.append(end)
    assert ends[-1] == safetensors.file_size(layout.schema)


def test_pieces_fill_a_model_without_gap_or_overlap():
    found = pieces(SCHEMA, 1024)
    assert [piece.first for piece in found] == np.cumsum([0, *(piece.count for piece in found)])[:-1].tolist()
    assert {piece.dtype: piece.count for piece in found} == {"F64": 476, "F32": 904, "F16": 7}
    assert found[-1].position + found[-1].size() == safetensors.file_size(SCHEMA)
    assert all(one.position + one.size() == other.position for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("dtype", "numbers", "expected"),
    [
        ("F32", [1, -7, 3], 7.0),
        ("F16", [1, 2, -0.5], 2.0),
        ("F64", [-1e300, 5], 1e300),
        ("I8", [-128, 127], 128.0),
        ("BF16", [0x3F80, 0xC0E0, 0x4040], 7.0),  # 1, -7, 3
        ("F32", [], 0.0),
        ("F32", [1, np.inf], np.inf),
        ("F32", [-np.inf, 1], np.inf),
        ("BF16", [0x3F80, 0xFF80], np.inf),
    ],
)
def test_the_peak_is_the_largest_absolute_value(dtype, numbers, expected):
    assert safetensors.peak(np.array(numbers, safetensors.NUMPY_DTYPES[dtype]), dtype) == expected


@pytest.mark.parametrize(("dtype", "numbers"), [("F32", [1, np.nan]), ("F16", [np.nan, 1]), ("BF16", [0x7FC0, 1])])
def test_a_peak_with_nan_is_nan(dtype, numbers):
    assert np.isnan(safetensors.peak(np.array(numbers, safetensors.NUMPY_DTYPES[dtype]), dtype))
