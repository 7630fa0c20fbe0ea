"""The demo's data: real, split as hospitals differ, nothing lost and nothing shared."""

import numpy as np
import pytest

from nevermined_fl.devnet import demo_data
from nevermined_fl.devnet.picture import Curves, draw
from nevermined_fl.errors import SettingsError
from nevermined_fl.trainers import load_table


@pytest.mark.parametrize(("name", "shape", "classes"), [("digits", (1797, 65), 10), ("breast-cancer", (569, 31), 2)])
def test_the_data_are_scikit_learn_s(name, shape, classes):
    table = demo_data.load(name)
    assert (table.rows.shape, table.classes(), len(table.columns)) == (shape, classes, shape[1])
    assert len(set(table.columns)) == shape[1]


def test_an_unknown_dataset_names_the_known():
    with pytest.raises(SettingsError, match="there are digits, breast-cancer"):
        demo_data.load("mnist")


@pytest.mark.parametrize("providers", [1, 3, 5])
def test_every_row_is_with_one_provider_or_with_the_data_scientist(providers):
    table = demo_data.load("digits")
    found = demo_data.split(table, providers=providers, seed=7)
    everything = np.concatenate([found.pooled(), found.test])
    assert len(found.parts) == providers
    assert len(found.test) == 449
    assert sorted(map(tuple, everything)) == sorted(map(tuple, table.rows))


def test_every_class_has_a_home_that_holds_most_of_it():
    found = demo_data.split(demo_data.load("digits"), providers=3, seed=0)
    for label in range(10):
        counts = [int((part[:, -1] == label).sum()) for part in found.parts]
        assert counts.index(max(counts)) == label % 3
        assert max(counts) / sum(counts) == pytest.approx(6 / 8, abs=0.02)
        assert min(counts) > 0


def test_the_same_seed_gives_the_same_split_and_another_one_another():
    table = demo_data.load("breast-cancer")
    first, again, other = (demo_data.split(table, providers=3, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.parts, again.parts, strict=True))
    assert not np.array_equal(first.test, other.test)


def test_too_many_providers_are_refused():
    with pytest.raises(SettingsError, match="too small for 20 providers"):
        demo_data.split(demo_data.load("breast-cancer"), providers=20, seed=0)


def test_what_is_written_is_what_trainers_read(tmp_path):
    table = demo_data.load("breast-cancer")
    demo_data.write_csv(tmp_path / "data" / "part.csv", table.columns, table.rows[:50])
    columns, rows = load_table(tmp_path)
    assert columns == table.columns
    assert np.allclose(rows, table.rows[:50], rtol=1e-9)


def test_the_scale_is_the_data_scientist_s_own_rows(tmp_path):
    table = demo_data.load("breast-cancer")
    test = demo_data.split(table, providers=3, seed=0).test
    found = demo_data.hyperparameters(table, test)
    assert found["offset"] == pytest.approx(test[:, :-1].mean(axis=0), rel=0.01)
    assert (found["features"], found["classes"]) == (30, 2)


def test_the_picture_is_a_png_and_an_svg(tmp_path):
    curves = Curves([0.5, 0.9], [0.8, 0.91], {"provider-1": [0.4, 0.6], "provider-2": [0.4, 0.6]})
    png, svg = draw(curves, "digits", tmp_path / "accuracy")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().count("<svg") == 1
