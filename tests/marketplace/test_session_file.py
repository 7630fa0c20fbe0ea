"""session.toml: everything declared, nothing guessed."""

from pathlib import Path

import pytest

from nevermined_fl.errors import SettingsError
from nevermined_fl.marketplace.session_file import load_session
from nevermined_fl.session.parameters import PARAMETERS
from nevermined_fl.session.plan import EarlyStop, Metric

EXAMPLE = Path(__file__).parents[2] / "examples" / "session.toml"
DID = "did:nv:" + "ab" * 32
LEAST = f'[session]\ndatasets = ["{DID}"]\ncompute = "{DID}"\n[algorithm]\nfile = "a.py"\n'


def load(folder, text, **options):
    file = folder / "session.toml"
    file.write_text(text)
    return load_session(file, **options)


def saying(text):
    """The least session with more in its [session]."""
    return LEAST.replace("[algorithm]", f"{text}\n[algorithm]")


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


def test_every_parameter_of_a_plan_can_be_said(tmp_path):
    said = """
rounds = 7
participants_ratio = 0.5
over_selection = 1.3
min_participants = 1
strategy = "fedadam"
strategy_options = {learning_rate = 0.25}
seed = 9
selection_timeout = 30
round_timeout = 60
evaluation_timeout = 20
repeats = 2
late_updates = "use"
evaluate_every = 3
checkpoint_every = 4
max_weight = 500
norm_bound = 2.5
control_bound = 7.5
precision = "int8"
arithmetic = "float"
hyperparameters = {epochs = 2}
metrics = [{name = "auc"}]
initial_model = "participant"
early_stop = {metric = "auc", target = 0.9, patience = 2}
"""
    found = load(tmp_path, saying(said)).settings
    assert (found.over_selection, found.repeats, found.late_updates) == (1.3, 2, "use")
    assert (found.evaluation_timeout, found.evaluate_every, found.checkpoint_every) == (20, 3, 4)
    assert (found.norm_bound, found.control_bound) == (2.5, 7.5)
    assert (found.precision, found.arithmetic) == ("int8", "float")
    assert found.early_stop == EarlyStop("auc", target=0.9, patience=2)
    assert not found.begins_with_own_model()
    # What follows from elsewhere: the engine from us, the schema from the algorithm, the asset from continue_from.
    spoken = {line.split(" = ")[0] for line in said.split("\n") if line}
    assert spoken == {field for field, _ in PARAMETERS.values()} - {"engine", "schema", "initial_asset"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds = 0", "\\[session\\] rounds: expected an integer 1 to 100000, got 0"),
        ('rounds = "3"', "\\[session\\] rounds: expected an integer"),
        ("over_selection = 0.5", "\\[session\\] over_selection: expected a number 1 to 100, got 0.5"),
        ('late_updates = "keep"', "\\[session\\] late_updates: expected one of drop, use, got keep"),
        ('precision = "int4"', "\\[session\\] precision: expected one of f32, f16, bf16, int8"),
        ("norm_bound = 0", "\\[session\\] norm_bound: expected a number above 0"),
        ("min_participants = 2", "\\[session\\] min_participants: expected at most the 1 datasets"),
        ('strategy = "fedsgd"', "\\[session\\] strategy: expected one of fedavg"),
        ("strategy_options = {mu = 1}", "\\[session\\] strategy_options: fedavg knows none, got 'mu'"),
        ("early_stop = 3", "early_stop should be a table"),
        ('early_stop = {goal = "max"}', "\\[session.early_stop\\] has metric, goal"),
        ('early_stop = {metric = "accuracy"}', "early_stop: expected a target, a tolerance or both"),
        ('early_stop = {metric = "auc", target = 1}', "early_stop.metric: expected one of the plan's metrics, got auc"),
        ("hyperparameters = {since = 2026-01-31}", "hyperparameters: expected JSON"),
        ('initial_model = "sha256:00"', "initial_model: expected algorithm or participant"),
        ('continue_from = "did:nv:12"', "continue_from should be did:nv: and 64 hex digits, not 'did:nv:12'"),
        ("continue_from = 3", "continue_from should be did:nv:"),
        (f'continue_from = "{DID}"\ninitial_model = "participant"', "begins with that one"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_in_the_words_of_the_file(tmp_path, text, said):
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, saying(text))


def test_the_command_line_says_last_what_a_session_continues(tmp_path):
    assert load(tmp_path, LEAST, continue_from=DID).settings.continue_from == DID
    other = saying(f'continue_from = "{DID.replace("ab", "cd")}"')
    assert load(tmp_path, other, continue_from=DID).settings.continue_from == DID
    with pytest.raises(SettingsError, match="continue_from should be"):
        load(tmp_path, LEAST, continue_from="the last one")
