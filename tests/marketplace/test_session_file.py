"""session.toml: everything declared, nothing guessed."""

from pathlib import Path

import pytest

from nevermined_fl.errors import SettingsError
from nevermined_fl.marketplace.session_file import load_session
from nevermined_fl.session.plan import Metric

EXAMPLE = Path(__file__).parents[2] / "examples" / "session.toml"
DID = "did:nv:" + "ab" * 32
LEAST = f'[session]\ndatasets = ["{DID}"]\ncompute = "{DID}"\n[algorithm]\nfile = "a.py"\n'


def load(folder, text):
    file = folder / "session.toml"
    file.write_text(text)
    return load_session(file)


def test_the_example_says_what_it_shows():
    found = load_session(EXAMPLE)
    assert len(found.datasets) == 3
    assert found.algorithm == EXAMPLE.parent / "tabular.py"
    assert found.settings.rounds == 10
    assert found.settings.min_participants == 2
    assert found.settings.selection_timeout == 120.0
    assert found.settings.hyperparameters["hidden"] == 32
    assert found.settings.metrics == (Metric("accuracy", 0.0, 1.0, 4), Metric("loss", 0.0, 1e6, 4))
    assert found.into == EXAMPLE.parents[1] / "models"


def test_the_least_that_a_session_needs(tmp_path):
    found = load(tmp_path, LEAST)
    assert (found.datasets, found.compute, found.algorithm) == ((DID,), DID, tmp_path / "a.py")
    assert found.name == "session"
    assert found.receipt == tmp_path / "session.receipt.json"
    assert (found.network, found.key) == (None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[session", "is not TOML"),
        (LEAST + "[sesion]\n", "unknown table 'sesion'"),
        (LEAST.replace("compute", "computer"), "unknown \\[session\\] setting 'computer'"),
        (LEAST.replace(f'compute = "{DID}"', ""), "\\[session\\] compute should be a text"),
        (LEAST.replace(f'["{DID}"]', f'"{DID}"'), "datasets should be a list"),
        (LEAST.replace('file = "a.py"', ""), "\\[algorithm\\] file should be a text"),
        (LEAST.replace("[algorithm]", "hyperparameters = 3\n[algorithm]"), "hyperparameters should be a table"),
        (LEAST + '[[session.metrics]]\nnam = "x"\n', "name, low, high and digits"),
        ("session = 3\n", "\\[session\\] should be a table"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, text)


def test_a_missing_file_points_to_the_example(tmp_path):
    with pytest.raises(SettingsError) as refused:
        load_session(tmp_path / "absent.toml")
    assert "examples/session.toml" in refused.value.hint
