"""Models to bytes and back, as the safetensors library does it; and bytes of people who mean harm."""

import json

import numpy as np
import pytest
import safetensors.numpy as library
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nevermined_fl.codecs import safetensors as codec
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.errors import DecodeError, LocalProtocolError

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
arrays = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
models = st.dictionaries(names, arrays, min_size=1, max_size=5)

MODEL = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5]), "h": np.ones(3, np.float16)}
SCHEMA = (TensorSchema("b", "F64", (1,)), TensorSchema("w", "F32", (2, 3)), TensorSchema("h", "F16", (3,)))


def file(header, data=b"", *, length=None):
    """A file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def tensor(begin, end, *, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def test_a_model_and_its_bytes():
    raw = codec.dump(MODEL)
    header = codec.Header.parse(raw)
    assert codec.schema_of(MODEL) == SCHEMA
    assert [entry.name for entry in header.entries] == ["b", "w", "h"]
    codec.check(header, SCHEMA)
    assert raw.startswith(codec.header_bytes(reversed(SCHEMA)))
    assert len(raw) == codec.file_size(SCHEMA) == header.file_size()
    start = header.data_offset
    assert codec.runs(SCHEMA) == (
        codec.Run("F64", start, start + 8),
        codec.Run("F32", start + 8, start + 32),
        codec.Run("F16", start + 32, start + 38),
    )
    assert codec.as_array(raw[start + 8 : start + 32], "F32").tolist() == [0, 1, 2, 3, 4, 5]
    back = codec.load(raw)
    back["w"] += 1  # writable
    assert back["w"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_equal_models_are_equal_bytes_whatever_the_order_layout_and_byte_order():
    other = {
        "h": np.ones(6, np.float16)[::2],
        "b": np.array([1.5], ">f8"),
        "w": np.asfortranarray(MODEL["w"]),
    }
    assert codec.dump(other) == codec.dump(MODEL)


@settings(max_examples=60)
@given(models)
def test_the_bytes_are_the_librarys(model):
    raw = codec.dump(model)
    assert raw == library.save({name: np.asarray(array) for name, array in model.items()})
    codec.check(codec.Header.parse(raw), codec.schema_of(model))
    assert codec.file_size(codec.schema_of(model)) == len(raw)


@settings(max_examples=60)
@given(models)
def test_reading_back_gives_the_same_bits(model):
    for back in (codec.load(codec.dump(model)), library.load(codec.dump(model))):
        assert set(back) == set(model)
        for name, array in model.items():
            assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
            assert back[name].tobytes() == array.tobytes()


@settings(max_examples=60)
@given(models)
def test_runs_cover_the_data_and_never_mix_dtypes(model):
    schema = codec.schema_of(model)
    header = codec.Header.parse(codec.dump(model))
    runs = codec.runs(schema)
    position = header.data_offset
    for run in runs:
        assert run.begin == position < run.end
        position = run.end
    assert position == header.file_size()
    for entry in header.entries:
        if entry.begin < entry.end:
            begin, end = header.data_offset + entry.begin, header.data_offset + entry.end
            assert [run.dtype for run in runs if run.begin <= begin and end <= run.end] == [entry.dtype]


def test_the_librarys_metadata_is_read_but_is_no_update():
    raw = library.save(MODEL, metadata={"format": "pt"})
    header = codec.Header.parse(raw)
    assert header.metadata == (("format", "pt"),)
    assert codec.load(raw).keys() == MODEL.keys()
    with pytest.raises(DecodeError, match="more than the plan's tensors"):
        codec.check(header, SCHEMA)


@pytest.mark.parametrize("array", [np.ones(2, np.int64), np.ones(2, bool), np.array(["x"]), np.array([object()])])
def test_other_dtypes_are_not_written(array):
    with pytest.raises(LocalProtocolError, match="'w'"):
        codec.dump({"w": array})


def test_no_tensor_is_called_metadata():
    with pytest.raises(LocalProtocolError):
        codec.dump({"__metadata__": np.ones(2)})


# --- bytes of people who mean harm -------------------------------------------------------------------------------


def test_every_truncation_is_refused():
    raw = codec.dump(MODEL)
    for length in range(len(raw)):
        with pytest.raises(DecodeError):
            codec.load(raw[:length])


def test_trailing_bytes_are_refused():
    with pytest.raises(DecodeError, match=r"a file of \d+ bytes, \d+ came"):
        codec.load(codec.dump(MODEL) + b"\0")


@pytest.mark.parametrize("length", [0, 1, codec.MAX_HEADER_BYTES + 1, 2**40, 2**64 - 1])
def test_a_header_length_is_judged_before_anything_is_read(length):
    with pytest.raises(DecodeError, match="are read") as caught:
        codec.header_length(length.to_bytes(8, "little"))
    assert caught.value.code == "too_large"
    assert codec.header_length((2).to_bytes(8, "little") + b"{}") == 2


HOSTILE = {
    "not JSON": b"{]",
    "not UTF-8": b'{"\xff": 1}',
    "a list": [tensor(0, 4)],
    "blanks first": b"  {}",
    "NaN": b'{"w": NaN}',
    "nested deeply": b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a name twice": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "a key twice": b'{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}',
    "a number of 5000 digits": b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
    "no object": {"w": [0, 4]},
    "a key missing": {"w": {"dtype": "F32", "shape": [1]}},
    "a key too many": {"w": tensor(0, 4) | {"note": "hello"}},
    "another dtype": {"w": tensor(0, 8, shape=[1], dtype="I64")},
    "no dtype": {"w": tensor(0, 4, dtype=["F32"])},
    "lower case": {"w": tensor(0, 4, dtype="f32")},
    "a negative size": {"w": tensor(0, 4, shape=[-1])},
    "two negative sizes": {"w": tensor(0, 4, shape=[-1, -1])},
    "a fraction": {"w": tensor(0, 4, shape=[1.0])},
    "a truth": {"w": tensor(0, 4, shape=[True])},
    "a shape that is no list": {"w": tensor(0, 4, shape=1)},
    "too many dimensions": {"w": tensor(0, 4, shape=[1] * 33)},
    "a product that overflows to 0": {"w": tensor(0, 0, shape=[2**32, 2**32])},
    "a product that overflows to 4": {"w": tensor(0, 4, shape=[2**31 + 1, 2**33])},
    "a size that is too large": {"w": tensor(0, 2**63, shape=[2**61])},
    "more shape than bytes": {"w": tensor(0, 4, shape=[2])},
    "more bytes than shape": {"w": tensor(0, 8, shape=[1])},
    "backwards": {"w": tensor(4, 0, shape=[0])},
    "one offset": {"w": tensor(0, 4) | {"data_offsets": [4]}},
    "three offsets": {"w": tensor(0, 4) | {"data_offsets": [0, 4, 8]}},
    "negative offsets": {"w": tensor(-4, 0)},
    "offsets as text": {"w": tensor(0, 4) | {"data_offsets": ["0", "4"]}},
    "a gap in front": {"w": tensor(4, 8)},
    "a gap between": {"v": tensor(0, 4), "w": tensor(8, 12)},
    "an overlap": {"v": tensor(0, 8), "w": tensor(4, 12)},
    "the same bytes twice": {"v": tensor(0, 4), "w": tensor(0, 4)},
    "one inside the other": {"v": tensor(0, 12), "w": tensor(4, 8)},
    "beyond the end": {"w": tensor(0, 400)},
    "metadata that is no object": {"__metadata__": "hello"},
    "metadata that is no text": {"__metadata__": {"n": 1}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused(name):
    with pytest.raises(DecodeError):
        codec.load(file(HOSTILE[name], b"\0" * 16))


def test_the_header_of_the_hostile_files_would_be_fine_otherwise():
    assert codec.load(file({"w": tensor(0, 16)}, b"\0" * 16))["w"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MODEL | {"extra": np.ones(1)}, "tensor 'extra' is not in the plan's schema"),
        ({"w": MODEL["w"], "b": MODEL["b"]}, "tensor 'h' is missing"),
        (MODEL | {"w": MODEL["w"].T.copy()}, r"tensor 'w' is F32\[3, 2\], expected F32\[2, 3\]"),
        (MODEL | {"b": np.ones(2, np.float32)}, r"tensor 'b' is F32\[2\], expected F64\[1\]"),
        (MODEL | {"w" * 5000: np.ones(1)}, "is not in the plan's schema"),
    ],
)
def test_another_model_than_the_plans_is_refused(model, message):
    with pytest.raises(DecodeError, match=message) as caught:
        codec.check(codec.Header.parse(codec.dump(model)), SCHEMA)
    assert caught.value.code == "schema"
    assert len(caught.value.message) < 200


def test_the_plans_model_in_another_order_or_with_padding_is_refused():
    header = json.loads(codec.header_bytes(SCHEMA)[8:])
    padded = codec.Header.parse(file(json.dumps(header, separators=(",", ":")).encode() + b" " * 512))
    with pytest.raises(DecodeError, match="more than the plan's tensors"):
        codec.check(padded, SCHEMA)
    pair = (TensorSchema("a", "F32", (2,)), TensorSchema("b", "F32", (2,)))
    swapped = json.dumps({"b": tensor(0, 8), "a": tensor(8, 16)}, separators=(",", ":")).encode()
    swapped += b" " * (-len(swapped) % 8)
    with pytest.raises(DecodeError, match="not in canonical order"):
        codec.check(codec.Header.parse(file(swapped)), pair)


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_byte_is_refused_or_changes_numbers_alone(data):
    raw = bytearray(codec.dump(MODEL))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        header = codec.Header.parse(bytes(raw))
        codec.check(header, SCHEMA)
        back = codec.load(bytes(raw))
    except DecodeError:
        return
    assert {name: array.shape for name, array in back.items()} == {name: array.shape for name, array in MODEL.items()}


@given(st.binary(max_size=200) | st.binary(max_size=100).map(file))
def test_any_bytes_are_a_model_or_refused(raw):
    try:
        codec.load(raw)
    except DecodeError:
        return
    assert library.load(raw) is not None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 20) | st.text(max_size=3) | st.sampled_from(["F32", "F16", 2**64]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["w", "v", "__metadata__"]), json_like, max_size=3))
def test_any_header_is_a_model_or_refused(header):
    try:
        back = codec.load(file(header))
    except DecodeError:
        return
    assert all(array.size == 0 for array in back.values())


def test_the_tensors_that_a_schema_promises_are_those_of_its_header():
    for schema in (SCHEMA, SCHEMA[::-1], SCHEMA[:1], ()):
        header = codec.Header.parse(codec.header_bytes(schema))
        assert (codec.entries(schema), codec.file_size(schema)) == (header.entries, header.file_size())
