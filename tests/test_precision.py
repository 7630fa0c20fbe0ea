"""Files of changes: both sides get the same bits, nothing is lost for good, and what a peer made up is refused."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nevermined_fl import precision
from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.digests import BLAKE3, digest_file
from nevermined_fl.errors import DecodeError
from nevermined_fl.files import sha256_file

# More than one block, a group that is not full, and two dtypes of which the second begins in the middle of a group.
SHAPES = {"w": (70_000,), "a/bias": (3, 5), "z": (1030,)}
WORDS = ("f16", "bf16", "int8")


def model(seed: int, scale: float = 1.0, dtypes: tuple[str, ...] = ("f4", "f8", "f2")):
    chance = np.random.default_rng(seed)
    return {
        name: (scale * chance.normal(size=shape)).astype(dtype)
        for (name, shape), dtype in zip(SHAPES.items(), dtypes, strict=True)
    }


def write(path: Path, tensors) -> Path:
    path.write_bytes(safetensors.dump(tensors))
    return path


def flat(path: Path) -> np.ndarray:
    """All numbers in the order of the file."""
    tensors = safetensors.load(path.read_bytes())
    return np.concatenate([tensors[t.name].astype(float).ravel() for t in safetensors.schema_of(tensors)])


def encode(folder: Path, before: Path, after: Path, word: str, residual: Path | None = None) -> precision.Change:
    schema = safetensors.schema_of(safetensors.load(before.read_bytes()))
    return precision.encode_change(
        before,
        after,
        residual_in=residual,
        residual_out=folder / "residual",
        into=folder / "change",
        schema=schema,
        precision=word,
    )


def apply(folder: Path, before: Path, word: str, change: str = "change") -> str:
    schema = safetensors.schema_of(safetensors.load(before.read_bytes()))
    return precision.apply_change(before, folder / change, folder / "made", schema, word)


@pytest.mark.parametrize(("word", "bytes_per_number"), [("f16", 2), ("bf16", 2), ("int8", 1 + 4 / 1024)])
def test_a_change_makes_about_the_updated_model_and_is_small(tmp_path, word, bytes_per_number):
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))

    change = encode(tmp_path, before, after, word)
    digest = apply(tmp_path, before, word)

    assert (change.change, digest) == (digest_file(tmp_path / "change", BLAKE3), sha256_file(tmp_path / "made"))
    assert change.residual == sha256_file(tmp_path / "residual")
    error = np.abs(flat(tmp_path / "made") - flat(after))
    assert 0 < error.max() < {"f16": 0.002, "bf16": 0.02, "int8": 0.03}[word]
    numbers = 70_000 + 15 + 1030
    assert (tmp_path / "change").stat().st_size < numbers * bytes_per_number + 300


@pytest.mark.parametrize("word", WORDS)
def test_whoever_applies_a_change_gets_the_bits_of_the_pure_functions(tmp_path, word):
    """The coordinator goes through the blocks in other sizes, and must name the same model."""
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))
    encode(tmp_path, before, after, word)
    digest = apply(tmp_path, before, word)

    expected = {}
    for name, tensor in model(1).items():  # each tensor is a run of its own dtype here, so groups begin with it
        encoded, _ = delta.encode(tensor.ravel(), model(2)[name].ravel(), None, word)
        expected[name] = delta.apply(tensor.ravel(), delta.decode(encoded, word)).reshape(tensor.shape)
    assert sha256_file(write(tmp_path / "c", expected)) == digest


@pytest.mark.parametrize("word", WORDS)
@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 1000), min_size=2, max_size=5), scale=st.sampled_from([1e-6, 1.0, 300.0]))
def test_what_rounding_leaves_out_is_sent_later(word, seeds, scale):
    """Decoded changes plus the residual add up to the true changes, however many rounds there were."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = write(folder / "start", {"w": np.zeros(3000, np.float32)})
        true, sent, residual = np.zeros(3000), np.zeros(3000), None
        for seed in seeds:
            step = (scale * np.random.default_rng(seed).normal(size=3000)).astype(np.float32)
            encode(folder, start, write(folder / "to", {"w": step}), word, residual)
            apply(folder, start, word)
            residual = (folder / "residual").replace(folder / "kept")
            true, sent = true + step, sent + flat(folder / "made")
        np.testing.assert_allclose(sent + flat(residual), true, rtol=0, atol=2e-6 * scale * len(seeds))
        # Without error feedback the errors of the rounds would add up; with it one round's is left.
        steps = 2**-24  # the smallest that f16 has
        assert np.abs(sent - true).max() <= {"f16": 0.005, "bf16": 0.04, "int8": 0.06}[word] * scale + steps


def test_the_first_residual_is_zero_and_the_second_carries_on(tmp_path):
    """By hand: steps of 1 are sent as 127; 0.3 is 38.1 of them, so 0.1 of a step (of 1/127) waits."""
    start = write(tmp_path / "start", {"w": np.zeros(2, np.float32)})
    to = write(tmp_path / "to", {"w": np.array([1.0, 0.3], np.float32)})
    encode(tmp_path, start, to, "int8")
    np.testing.assert_allclose(flat(tmp_path / "residual"), [0, 0.3 - 38 / 127], atol=1e-7)
    kept = (tmp_path / "residual").rename(tmp_path / "kept")
    encode(tmp_path, start, to, "int8", kept)
    apply(tmp_path, start, "int8")
    # 0.3 + 0.1/127 is 38.2 steps: still 38, and now 0.2 of a step waits.
    np.testing.assert_allclose(flat(tmp_path / "made"), [1.0, 38 / 127], atol=1e-7)
    np.testing.assert_allclose(flat(tmp_path / "residual"), [0, 2 * (0.3 - 38 / 127)], atol=1e-7)


def spoil(path: Path, position: int, raw: bytes) -> None:
    body = bytearray(path.read_bytes())
    body[position : position + len(raw)] = raw
    path.write_bytes(body)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, -1e-3])
def test_a_scale_that_is_no_scale_is_refused(tmp_path, number):
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))
    encode(tmp_path, before, after, "int8")
    layout = delta.Layout(safetensors.schema_of(model(1)), "int8")
    begin = next(run.begin for run in safetensors.runs(layout.schema) if run.dtype == "F32")
    spoil(tmp_path / "change", begin + 4 * 69, np.float32(number).tobytes())
    with pytest.raises(DecodeError) as caught:
        apply(tmp_path, before, "int8")
    assert caught.value.code == "not_finite"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("word", "bits"), [("f16", b"\x00\x7c"), ("f16", b"\x01\xfe"), ("bf16", b"\x80\x7f")])
def test_a_change_that_is_not_finite_is_refused(tmp_path, word, bits):
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))
    encode(tmp_path, before, after, word)
    size = (tmp_path / "change").stat().st_size
    spoil(tmp_path / "change", size - 2, bits)
    with pytest.raises(DecodeError) as caught:
        apply(tmp_path, before, word)
    assert caught.value.code == "not_finite"


def test_a_change_of_another_size_or_schema_is_refused(tmp_path):
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))
    encode(tmp_path, before, after, "int8")
    whole = (tmp_path / "change").read_bytes()
    for raw in (whole[:-1], whole + b"\0", whole[:40], b"", after.read_bytes()):
        (tmp_path / "other").write_bytes(raw)
        with pytest.raises(DecodeError):
            apply(tmp_path, before, "int8", "other")
    with pytest.raises(DecodeError):  # of another precision
        apply(tmp_path, before, "f16")


def test_a_residual_of_another_model_is_refused(tmp_path):
    before, after = write(tmp_path / "a", model(1)), write(tmp_path / "b", model(2))
    other = write(tmp_path / "other", {"#residual": np.zeros(7, np.float32)})
    with pytest.raises(DecodeError):
        encode(tmp_path, before, after, "int8", other)


def test_an_extended_model_has_zeros_beside_its_tensors(tmp_path):
    tensors = model(3)
    schema = safetensors.schema_of(tensors)
    beside = tuple(TensorSchema(f"control/{t.name}", "F64" if t.dtype == "F64" else "F32", t.shape) for t in schema)
    precision.extend(write(tmp_path / "a", tensors), tmp_path / "b", schema, (*schema, *beside))
    zeros = {t.name: np.zeros(t.shape, safetensors.NUMPY_DTYPES[t.dtype]) for t in beside}
    assert (tmp_path / "b").read_bytes() == safetensors.dump(tensors | zeros)
