"""A plan says yes to what it knows and names what it does not."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_world import MEMBERS, A, B, C, digest, parameters, plan

from nevermined_fl.aggregation import AGGREGATORS, create
from nevermined_fl.errors import InvalidRequest
from nevermined_fl.session import Metric, Plan, TensorSchema, draw
from nevermined_fl.session.plan import EarlyStop

TENSOR = {"name": "w", "dtype": "F32", "shape": [3]}
ASSET = "did:nv:" + "0a" * 32
HUGE = 10**5000


def test_the_smallest_plan_and_its_defaults():
    needed = {"minParticipants": 2, "rounds": 3, "initialModel": digest(1), "schema": [TENSOR]}
    made = Plan.from_parameters(needed, (A, B))
    assert made == Plan((A, B), 3, 2, digest(1), (TensorSchema("w", "F32", (3,)),))
    assert (made.strategy, made.participants_ratio, made.engine) == ("fedavg", 1.0, "native")
    assert [metric.name for metric in made.metrics] == ["accuracy", "loss"]


def test_a_full_plan():
    made = plan(
        engine="native",
        participantsRatio=0.25,
        strategy="fedadam",
        strategyOptions={"tau": 1, "beta1": 0.5},
        hyperparameters={"lr": 0.1, "layers": [8, {"dropout": None}]},
        metrics=[{"name": "f1"}, {"name": "loss", "low": -1, "high": 2.5, "digits": 0}],
        schema=[
            TENSOR,
            {"name": "a/b.c-d_0", "dtype": "F64", "shape": []},
            {"name": "_h", "dtype": "F16", "shape": [2, 5]},
        ],
    )
    assert made.strategy_options == (("beta1", 0.5), ("tau", 1.0))
    assert made.metrics == (Metric("f1", 0.0, 1.0, 6), Metric("loss", -1.0, 2.5, 0))
    assert made.hyperparameters == (("layers", [8, {"dropout": None}]), ("lr", 0.1))
    assert made.model_size() == 3 * 4 + 8 + 10 * 2
    assert made.max_duration() == 30.0 + 2 * 2 * 60.0


def test_what_a_plan_may_say_of_rounds_evaluations_and_the_wire():
    made = plan(
        overSelection=1.5,
        evaluationTimeout=20,
        repeats=3,
        lateUpdates="use",
        earlyStop={"metric": "loss", "goal": "min", "target": 0.5, "tolerance": 0.01, "patience": 4},
        evaluateEvery=5,
        checkpointEvery=2,
        normBound=10,
        controlBound=20,
        precision="int8",
        arithmetic="float",
        initialAsset=ASSET,
    )
    assert (made.over_selection, made.evaluation_timeout, made.repeats, made.late_updates) == (1.5, 20.0, 3, "use")
    assert made.early_stop == EarlyStop("loss", "min", 0.5, 0.01, 4)
    assert (made.evaluate_every, made.checkpoint_every, made.norm_bound) == (5, 2, 10.0)
    assert (made.bound(""), made.bound("control")) == (10.0, 20.0)
    assert (plan(normBound=3).bound("control"), plan(controlBound=4).bound("")) == (3.0, None)
    assert (made.precision, made.arithmetic, made.initial_asset) == ("int8", "float", ASSET)
    assert plan(initialModel="participant").initial_model == "participant"
    assert plan(earlyStop={"metric": "loss", "target": 1}).early_stop == EarlyStop("loss", "max", 1.0, None, 1)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 30 + 7 * 60 + 7 * 60),
        ({"evaluationTimeout": 5}, 30 + 7 * 60 + 7 * 5),
        ({"evaluationTimeout": 5, "evaluateEvery": 3}, 30 + 7 * 60 + 3 * 5),  # after rounds 3, 6 and 7
        ({"evaluationTimeout": 5, "evaluateEvery": 7}, 30 + 7 * 60 + 5),
        ({"metrics": []}, 30 + 7 * 60),
        ({"metrics": [], "repeats": 2}, 30 + 7 * 3 * 60),
        ({"metrics": [], "initialModel": "participant"}, 30 + 3 * 60 + 7 * 60),
    ],
)
def test_the_longest_that_a_session_takes(changes, seconds):
    assert plan(rounds=7, **changes).max_duration() == seconds


def test_which_rounds_are_evaluated():
    made = plan(rounds=7, evaluateEvery=3)
    assert [number for number in range(1, 8) if made.evaluates(number)] == [3, 6, 7]
    assert not any(plan(rounds=7, metrics=[]).evaluates(number) for number in range(1, 8))


def test_what_a_strategy_carries_beside_the_model():
    schema = [TENSOR, {"name": "d/x", "dtype": "F64", "shape": [2]}, {"name": "h", "dtype": "F16", "shape": []}]
    assert plan(schema=schema).carried() == plan(schema=schema).schema
    made = plan(schema=schema, strategy="scaffold")
    assert made.carried() == (
        *made.schema,
        TensorSchema("control/w", "F32", (3,)),
        TensorSchema("control/d/x", "F64", (2,)),
        TensorSchema("control/h", "F32", ()),
    )
    taken = [TENSOR, TENSOR | {"name": "control/w"}]
    assert len(plan(schema=taken).carried()) == 2
    with pytest.raises(InvalidRequest, match=r"^schema: expected each name once, got control/w twice"):
        plan(schema=taken, strategy="scaffold")


def test_a_plan_survives_its_ddo():
    trimmed = {"strategy": "trimmed_mean", "strategyOptions": {"trim": 0.2}, "minParticipants": 5}
    made = plan(MEMBERS, **trimmed, hyperparameters={"b": 1, "a": "x"})
    again = json.loads(json.dumps(made.to_parameters(), sort_keys=True))
    assert Plan.from_parameters(again, made.members) == made


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rounds", 0, "an integer 1 to 100000, got 0"),
        ("rounds", 100_001, "an integer 1 to 100000, got 100001"),
        ("rounds", 2.0, "an integer"),
        ("rounds", True, "an integer"),
        ("rounds", "2", "an integer"),
        ("minParticipants", 0, "an integer 1 to"),
        ("minParticipants", 4, "at most the 3 datasets of the session, got 4"),
        ("participantsRatio", 0, "a number above 0, at most 1, got 0"),
        ("participantsRatio", 1.0001, "a number 0 to 1, got 1.0001"),
        ("participantsRatio", -0.5, "a number 0 to 1"),
        ("participantsRatio", math.nan, "a number 0 to 1, got nan"),
        ("participantsRatio", None, "a number 0 to 1, got None"),
        ("participantsRatio", True, "a number 0 to 1"),
        ("selectionTimeout", 0, "a number above 0"),
        ("selectionTimeout", math.inf, "a number 0 to"),
        ("roundTimeout", -1, "a number 0 to"),
        ("roundTimeout", 1e308, "a number 0 to"),
        ("seed", -1, "an integer 0 to"),
        ("seed", 2**53, "an integer 0 to"),
        ("maxWeight", 0, "an integer 1 to"),
        ("engine", "flower", "native, the only engine of this version, got flower"),
        ("engine", ["native"], "native"),
        ("strategy", "vote", "one of fedavg, "),
        ("strategy", ["fedavg"], "text, got list"),
        ("strategyOptions", {"momentum": 0.9}, "fedavg knows none, got 'momentum'"),
        ("strategyOptions", [], "a JSON object, got list"),
        ("strategyOptions", {1: 0.5}, "a JSON object"),
        ("initialModel", "sha256:12", "text like"),
        ("initialModel", digest(1).upper(), "text like"),
        ("initialModel", digest(1) + "\n", "text like"),
        ("initialModel", None, "text like"),
        ("initialModel", "participants", "text like"),
        ("initialAsset", "did:nv:12", "text like"),
        ("initialAsset", None, "text like"),
        ("overSelection", 0.99, "a number 1 to 100, got 0.99"),
        ("overSelection", 100.5, "a number 1 to 100"),
        ("overSelection", math.nan, "a number 1 to 100, got nan"),
        ("evaluationTimeout", 0, "a number above 0"),
        ("evaluationTimeout", "60", "a number 0 to"),
        ("repeats", -1, "an integer 0 to 1000, got -1"),
        ("repeats", 1001, "an integer 0 to 1000"),
        ("repeats", 1.0, "an integer 0 to 1000"),
        ("lateUpdates", "keep", "one of drop, use, got keep"),
        ("lateUpdates", ["use"], "one of drop, use"),
        ("evaluateEvery", 0, "an integer 1 to 100000, got 0"),
        ("checkpointEvery", -1, "an integer 0 to 100000"),
        ("normBound", 0, "a number above 0"),
        ("controlBound", 0, "a number above 0"),
        ("normBound", math.inf, "a number 0 to"),
        ("precision", "f64", "one of f32, f16, bf16, int8, got f64"),
        ("arithmetic", "exact", "one of fixed, float, got exact"),
        ("earlyStop", "never", "a JSON object, got never"),
        ("earlyStop", {"target": 0.9}, "an object with goal, metric, patience, target, tolerance"),
        ("earlyStop", {"metric": "accuracy"}, "a target, a tolerance or both, got neither"),
        ("earlyStop", {"metric": "f1", "target": 0.9}, "one of the plan's metrics, got f1"),
        ("earlyStop", {"metric": "accuracy", "target": math.nan}, "a number"),
        ("earlyStop", {"metric": "accuracy", "tolerance": -0.1}, "a number 0 to"),
        ("earlyStop", {"metric": "accuracy", "target": 1, "goal": "up"}, "one of max, min, got up"),
        ("earlyStop", {"metric": "accuracy", "target": 1, "patience": 0}, "an integer 1 to 100000"),
        (
            "earlyStop",
            {"metric": "accuracy", "target": 1.001},
            "earlyStop.target: expected 0 to 1, the range of accuracy",
        ),
        ("earlyStop", {"metric": "loss", "goal": "min", "target": -1}, "the range of loss, got -1"),
        ("hyperparameters", "lr=1", "a JSON object, got lr=1"),
        ("hyperparameters", {"lr": math.inf}, "JSON with finite numbers"),
        ("hyperparameters", {"lr": b"1"}, "JSON with finite numbers"),
        ("hyperparameters", {"lr": "\ud800"}, "JSON with finite numbers"),
        ("schema", [], "a list of 1 to 10000, got 0 of them"),
        ("schema", [TENSOR] * 2, "each name once, got w twice"),
        ("schema", [TENSOR | {"name": str(n)} for n in range(10_001)], "got 10001 of them"),
        ("schema", {"w": TENSOR}, "a list"),
        ("schema", [{"name": "w", "dtype": "F32"}], "an object with dtype, name, shape"),
        ("schema", [TENSOR | {"offset": 0}], "an object with dtype, name, shape"),
        ("schema", [TENSOR | {"name": "1w"}], "text like"),
        ("schema", [TENSOR | {"name": "w" * 129}], "text like"),
        ("schema", [TENSOR | {"name": "__metadata__"}], "another name, for safetensors has a use of its own"),
        ("schema", [TENSOR | {"dtype": "I64"}], "one of F64, F32, F16, got I64"),
        ("schema", [TENSOR | {"dtype": ["F32"]}], "one of F64"),
        ("schema", [TENSOR | {"shape": [0]}], "an integer 1 to"),
        ("schema", [TENSOR | {"shape": [1] * 33}], "a list of 0 to 32, got 33 of them"),
        ("schema", [TENSOR | {"shape": [2**39]}], "at most 1099511627776 bytes of tensors, got 2199023255552 bytes"),
        ("schema", [TENSOR | {"shape": [2**40] * 32}], "bytes of tensors, got more"),
        ("metrics", {"accuracy": {}}, "a list of 0 to 64"),
        ("metrics", [{"name": "a"}, {"name": "a"}], "each name once, got a twice"),
        ("metrics", [{"name": "a b"}], "text like"),
        ("metrics", [{}], "an object with digits, high, low, name"),
        ("metrics", [{"name": "a", "low": 1}], "more than low, 1, got 1"),
        ("metrics", [{"name": "a", "high": math.nan}], "a number"),
        ("metrics", [{"name": "a", "digits": 13}], "an integer 0 to 12"),
        ("metrics", [{"name": "a", "digits": 1.5}], "an integer 0 to 12"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, value, expected):
    with pytest.raises(InvalidRequest) as caught:
        Plan.from_parameters(parameters() | {name: value}, (A, B, C))
    assert caught.value.message.startswith(name)
    assert f"expected {expected}" in caught.value.message or expected in caught.value.message
    assert "got" in caught.value.message
    assert len(caught.value.message) < 600
    assert (caught.value.check, caught.value.status) == ("plan", 400)


def test_who_makes_the_initial_model_and_from_where_it_comes_are_not_both_said():
    with pytest.raises(InvalidRequest, match=rf"^initialAsset: expected none, for a participant .*, got {ASSET}$"):
        plan(initialModel="participant", initialAsset=ASSET)


@pytest.mark.parametrize(
    ("low", "high", "digits", "refused"),
    [
        (0, 2.45, 1, "high: expected a number that rounding to 1 digits does not raise, got 2.45"),
        (0, 0.9999999, 6, "high: expected a number that rounding to 6 digits does not raise, got 0.9999999"),
        (2.35, 2.5, 0, "low: expected a number that rounding to 0 digits does not lower, got 2.35"),
        (-2.45, 0, 1, "low: expected a number that rounding to 1 digits does not lower, got -2.45"),
        (0, 2.5, 0, ""),  # 2.5 becomes 2
        (-1.2, 2.44, 1, ""),
        (0.123456789012, 1e300, 12, ""),
    ],
)
def test_a_metric_stays_in_its_range_when_it_is_rounded(low, high, digits, refused):
    metrics = [{"name": "m", "low": low, "high": high, "digits": digits}]
    if refused:
        with pytest.raises(InvalidRequest, match=rf"^metrics\[0\]\.{refused}$"):
            plan(metrics=metrics)
    else:
        assert plan(metrics=metrics).metrics == (Metric("m", low, high, digits),)


edges = st.floats(-1e300, 1e300) | st.floats(-3, 3) | st.decimals(-3, 3, places=2).map(float)


@given(edges, edges, st.integers(0, 12), st.data())
def test_whatever_is_in_a_metrics_range_is_there_when_it_is_rounded(low, high, digits, data):
    try:
        plan(metrics=[{"name": "m", "low": low, "high": high, "digits": digits}])
    except InvalidRequest:
        return
    assert low <= round(data.draw(st.floats(low, high)), digits) <= high


@pytest.mark.parametrize("name", ["rounds", "participantsRatio", "roundTimeout", "strategyOptions", "schema"])
def test_a_number_too_long_to_print_is_refused(name):
    huge = {"strategyOptions": {"trim": HUGE}, "schema": [TENSOR | {"shape": [HUGE]}]}.get(name, HUGE)
    with pytest.raises(InvalidRequest, match=rf"^{name}.*, got int$"):
        plan(**{name: huge})


NASTY = "\ud800\n\x1b[2J"


@pytest.mark.parametrize(
    "changes",
    [
        {NASTY: 1},
        {"engine": NASTY},
        {"strategy": NASTY},
        {"strategyOptions": {NASTY: 0.5}},
        {"strategyOptions": {NASTY: None}},
        {"lateUpdates": NASTY},
        {"initialModel": NASTY},
        {"initialAsset": NASTY},
        {"rounds": NASTY},
        {"roundTimeout": NASTY},
        {"earlyStop": {"metric": NASTY, "target": 1}},
        {"earlyStop": {"metric": "accuracy", NASTY: 1}},
        {"metrics": [{"name": NASTY}]},
        {"metrics": [{NASTY: "a"}]},
        {"schema": [TENSOR | {"name": NASTY}]},
        {"schema": [TENSOR | {"dtype": NASTY}]},
        {"schema": [TENSOR | {NASTY: 1}]},
        {"hyperparameters": NASTY},
        {"hyperparameters": {NASTY: 1}},
    ],
)
def test_a_refusal_can_be_printed_and_sent_whatever_came(changes):
    with pytest.raises(InvalidRequest) as caught:
        plan(**changes)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


def test_a_strange_member_is_refused_in_printable_words():
    with pytest.raises(InvalidRequest, match=r"^members: .*, got \\ud800\\n\\x1b\[2J$"):
        plan((NASTY,))


@pytest.mark.parametrize("name", ["minParticipants", "rounds", "initialModel", "schema"])
def test_what_is_missing_is_named(name):
    body = parameters()
    del body[name]
    with pytest.raises(InvalidRequest, match=f"^{name}: expected a value, got nothing"):
        Plan.from_parameters(body, (A, B, C))


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(InvalidRequest, match=r"^participantRatio: expected one of .*participantsRatio"):
        plan(participantRatio=0.5)


@pytest.mark.parametrize("members", [(), (A, A), ("",), (A, 1), "abc", ("a b",), ("a" * 129,)])
def test_members_are_distinct_ids(members):
    with pytest.raises(InvalidRequest, match=r"^members"):
        Plan.from_parameters(parameters(minParticipants=1), members)


def test_parameters_that_fit_no_message_are_refused():
    with pytest.raises(InvalidRequest, match=r"^parameters: expected at most 524288 bytes of JSON"):
        plan(hyperparameters={"text": "x" * 600_000})
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match=r"^hyperparameters"):
        plan(hyperparameters={"deep": deep})


@pytest.mark.parametrize(
    ("came", "kept"),
    [
        ({"layers": (64, 32)}, {"layers": [64, 32]}),
        ({"by_class": {1: 0.5, None: (1,)}}, {"by_class": {"1": 0.5, "null": [1]}}),
        ({"b": [{"c": ((), -0.0)}], "a": 1e-320}, {"a": 1e-320, "b": [{"c": [[], -0.0]}]}),
    ],
)
def test_hyperparameters_are_what_json_makes_of_them(came, kept):
    """Else a restarted coordinator would take its own journal for another session's."""
    made = plan(hyperparameters=came)
    assert dict(made.hyperparameters) == kept
    assert Plan.from_parameters(json.loads(json.dumps(made.to_parameters())), made.members) == made


def test_no_hyperparameter_is_lost_because_its_key_becomes_another_ones():
    with pytest.raises(InvalidRequest, match=r"^hyperparameters: expected each key once when they are texts, got two"):
        plan(hyperparameters={"by_class": {1: 0.5, "1": 0.25}})


def crowd(count):
    return tuple(f"did:nv:{number:064x}" for number in range(count))


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        *((name, {}) for name in AGGREGATORS),
        ("krum", {"byzantine": 0}),
        ("krum", {"byzantine": 3}),
        ("multi_krum", {"keep": 9}),
        ("trimmed_mean", {"trim": 0.3}),
    ],
)
def test_every_strategy_gets_as_many_updates_as_it_needs(strategy, options):
    fewest = create(strategy, options).fewest()
    few = {"strategy": strategy, "strategyOptions": options, "participantsRatio": 0.01}
    made = plan(crowd(40), minParticipants=fewest, **few)
    # However few the ratio would draw.
    assert [draw.target(made, present) for present in (fewest, 40)] == [fewest, fewest]
    assert len(draw.cohort(made, 1, crowd(40))) == fewest
    if fewest > 1:
        expected = f"minParticipants: expected at least {fewest} for {strategy} with these options, got {fewest - 1}"
        with pytest.raises(InvalidRequest, match=f"^{expected}$"):
            plan(crowd(40), minParticipants=fewest - 1, **few)


def test_krum_needs_more_than_one_update():
    assert plan(MEMBERS, strategy="krum", strategyOptions={"byzantine": 0}, minParticipants=3).min_participants == 3
    with pytest.raises(InvalidRequest, match=r"^minParticipants: expected at least 5 for krum .*, got 4$"):
        plan(MEMBERS, strategy="krum", minParticipants=4)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(plan().to_parameters())), anything, max_size=3))
def test_whatever_comes_is_a_plan_or_a_refusal(changes):
    try:
        made = Plan.from_parameters(parameters() | changes, MEMBERS)
    except InvalidRequest:
        return
    assert Plan.from_parameters(json.loads(json.dumps(made.to_parameters())), MEMBERS) == made
