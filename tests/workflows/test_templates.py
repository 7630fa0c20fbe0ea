"""Templates are filled in, compared with golden files, and documents are checked against them."""

import copy
import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workflows

golden = runpy.run_path(str(Path(__file__).with_name("golden.py")))
VALUES, GOLDEN = golden["VALUES"], golden["GOLDEN"]


@pytest.mark.parametrize("name", workflows.names())
def test_a_template_renders_to_its_golden_file_which_is_valid(name):
    assert golden["text"](name) == (GOLDEN / f"{name}.json").read_text()
    workflows.validate(name, json.loads(golden["text"](name)))


def test_there_is_a_golden_file_for_each_template_and_no_other():
    assert tuple(sorted(path.stem for path in GOLDEN.iterdir())) == workflows.names()


@pytest.mark.parametrize("name", workflows.names())
def test_each_missing_value_is_named(name):
    for key in set(VALUES[name]) - {"sample"}:
        values = {k: v for k, v in VALUES[name].items() if k != key}
        with pytest.raises(workflows.MissingValue, match=f"no value for {key}"):
            workflows.render(name, **values)


def test_an_optional_value_may_be_left_out_or_none():
    for values in (VALUES["dataset"] | {"sample": None}, {k: v for k, v in VALUES["dataset"].items() if k != "sample"}):
        main = workflows.render("dataset", **values)["service"][0]["attributes"]["main"]
        assert "sample" not in main


def test_an_unknown_template_and_an_unknown_value_are_refused():
    with pytest.raises(workflows.UnknownTemplate, match="known are algorithm, compute"):
        workflows.render("../dataset")
    with pytest.raises(workflows.UnknownTemplate):
        workflows.validate("parts/file", {})
    with pytest.raises(workflows.UnknownValue, match="'colour'"):
        workflows.render("model", **VALUES["model"], colour="red")


def test_an_unknown_key_of_an_item_is_refused():
    files = [VALUES["model"]["files"][0] | {"url": "http://secret"}]
    with pytest.raises(workflows.UnknownValue, match=r"files\[0\] has no placeholder 'url'"):
        workflows.render("model", **VALUES["model"] | {"files": files})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("timeout", "5000", "whole number"),
        ("timeout", True, "whole number"),
        ("timeout", -1, "whole number"),
        ("amounts", ["12", 3], "whole number"),
        ("amounts", ["1 2", "3"], "whole number"),
        ("amounts", ["012", "3"], "whole number"),
        ("amounts", [], "at least one"),
        ("receivers", ["0x12"], "address"),
        ("gateway", "http://user:password@host/", "URL"),
        ("gateway", "file:///etc/passwd", "URL"),
        ("gateway", "http://host/ path", "URL"),
        ("name", 'x", "price": "0', None),
        ("name", "two\nlines", "a line"),
        ("name", "", "a line"),
        ("created", "yesterday", "a time"),
        ("inbound", 0, "true or false"),
        ("sample", {"columns": ["a"], "rows": [[1, 2]]}, "a table"),
        ("sample", {"columns": ["a"], "rows": [[float("nan")]]}, "a table"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_a_quote_is_only_a_quote(key, value, expected):
    values = VALUES["dataset"] | {key: value}
    if expected is None:
        rendered = workflows.render("dataset", **values)
        assert rendered["service"][0]["attributes"]["main"]["name"] == value
        assert rendered["service"][0]["attributes"]["main"]["price"] == "15"
        return
    with pytest.raises(workflows.InvalidValue, match=expected):
        workflows.render("dataset", **values)


def test_a_placeholder_inside_of_a_value_is_not_filled_in():
    rendered = workflows.render("model", **VALUES["model"] | {"name": "${gateway:url}"})
    assert rendered["service"][0]["attributes"]["main"]["name"] == "${gateway:url}"


def test_a_document_shares_nothing_with_the_values_it_was_made_of():
    values = copy.deepcopy(VALUES["model"])
    rendered = workflows.render("model", **values)
    values["metrics"]["accuracy"] = 1.0
    assert rendered["service"][0]["attributes"]["main"]["metrics"]["accuracy"] == 0.93


def test_what_is_not_json_is_refused():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in ({"a": {1, 2}}, {"a": float("nan")}, {"a": deep}):
        with pytest.raises(workflows.InvalidValue, match="is not JSON"):
            workflows.render(
                "fl-coordinator", **VALUES["fl-coordinator"] | {"parameters": golden["PARAMETERS"] | value}
            )


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (
            ("service", 0, "attributes", "main", "session", "compute"),
            "did:nv:12",
            "main.session.compute should be a DID",
        ),
        (
            ("service", 0, "attributes", "main", "workflow", "stages", 0, "input"),
            [{}],
            r"stages\[0\].input should be an empty",
        ),
        (
            ("service", 0, "attributes", "main", "workflow", "stages", 0, "index"),
            False,
            r"stages\[0\].index should be 0",
        ),
        (
            ("service", 0, "attributes", "main", "type"),
            "workflow",
            "main.type should be \"fl-coordinator\", got 'workflow'",
        ),
        (("service", 0, "attributes", "main", "parameters", "rounds"), 2.5, "main.parameters should be an object with"),
        (("service", 0), 3, r"service\[0\] should be an object, got 3"),
        (("service",), [], "service should be a list of 1"),
        (("service", 0, "attributes"), 10**500, "attributes should be an object, got a huge number"),
    ],
)
def test_an_invalid_document_is_refused_with_the_place(path, value, where):
    document = workflows.render("fl-coordinator", **VALUES["fl-coordinator"])
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(workflows.InvalidDocument, match=where):
        workflows.validate("fl-coordinator", document)


def test_keys_that_a_template_does_not_know_are_left_alone():
    document = workflows.render("model", **VALUES["model"]) | {"userId": "u-1"}
    workflows.validate("model", document)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["service", "attributes", "main", "type", "0"]), inner)
        ),
    )
)
def test_whatever_the_document_only_the_packages_own_error_comes_out(document):
    for name in workflows.names():
        with pytest.raises(workflows.TemplateError):
            workflows.validate(name, document)
