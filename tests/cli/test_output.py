"""What commands print."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from nevermined_fl.cli.options import smallest_units
from nevermined_fl.cli.output import Output, plain, tokens
from nevermined_fl.errors import SettingsError


@dataclass
class Thing:
    path: Path
    parts: tuple


def test_results_become_plain_json(capsys):
    Output(as_json=True).result({"thing": Thing(Path("a"), (Thing(Path("b"), ()), None, 1.5))})
    assert json.loads(capsys.readouterr().out) == {
        "thing": {"path": "a", "parts": [{"path": "b", "parts": []}, None, 1.5]}
    }
    assert plain({1: {"a"}}) == {"1": "{'a'}"}


def test_with_json_nothing_else_reaches_stdout(capsys):
    out = Output(as_json=True)
    out.say("hello")
    out.table("title", ("a",), [("b",)])
    out.progress("going on")
    with out.waiting("still"):
        pass
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "going on\nstill\n"


def test_dids_come_through_a_pipe_whole_and_brackets_are_no_markup(capsys):
    did = "did:nv:" + "ab" * 32
    out = Output(as_json=False)
    out.table("", ("one", "two"), [(did, did)])
    out.say("[bold]kept[/bold] " + "x" * 300)
    printed = capsys.readouterr().out
    assert printed.count(did) == 2
    assert "[bold]kept[/bold] " + "x" * 300 in printed


@pytest.mark.parametrize(
    ("typed", "amount"), [("12", 12_000), ("0.5", 500), ("0", 0), ("1e1", 10_000), ("0.001", 1), ("12.50", 12_500)]
)
def test_prices_are_exact(typed, amount):
    assert smallest_units(typed, 3) == amount
    assert Decimal(tokens(amount, 3)) == Decimal(typed)


@pytest.mark.parametrize("typed", ["-1", "a", "", "0.0001", "nan", "inf", "1,5"])
def test_what_is_no_price_is_refused(typed):
    with pytest.raises(SettingsError):
        smallest_units(typed, 3)


EVIL = "\x1b]0;owned\x07[/bold][link=https://evil]x\x9b31m"


def test_text_of_strangers_neither_steers_the_terminal_nor_breaks_the_table(capsys):
    out = Output(as_json=False)
    out.table(EVIL, ("name",), [(EVIL,), (None,), (7,)])
    out.say(f"one\ntwo {EVIL}")
    out.progress(EVIL)
    out.error("Kind", EVIL, hint=EVIL, check=EVIL)
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
    assert said.count("[/bold][link=https://evil]x") == 7
    assert "one\ntwo" in said


def test_programs_get_what_was_written(capsys):
    Output(as_json=True).result({"name": EVIL})
    assert json.loads(capsys.readouterr().out) == {"name": EVIL}
