"""The command line: help with an example, one JSON object, honest exit codes, no tracebacks."""

import json
import os
import subprocess
import sys
import time

import pytest
import typer

from nevermined_fl import __version__, cli
from nevermined_fl.cli.app import app, main

COMMANDS = [
    ("demo",),
    ("simulate", "nosuch.py"),
    ("devnet", "up", "--home", "occupied"),
    ("devnet", "down"),
    ("devnet", "status"),
    ("devnet", "fund", "0x" + "51" * 20),
    ("search", "digits"),
    ("show", "did:nv:00"),
    ("publish", "dataset", "a.csv", "--price", "1", "--name", "A"),
    ("publish", "algorithm", "session.toml"),
    ("publish", "workflow", "--session", "did:nv:00", "--algorithm", "did:nv:00"),
    ("publish", "coordinator", "session.toml"),
    ("publish", "compute", "--price", "1", "--name", "A"),
    ("quote", "did:nv:00"),
    ("order", "did:nv:00"),
    ("start", "0x00", "--workflow", "did:nv:00"),
    ("status", "0x00"),
    ("logs", "0x00"),
    ("stop", "0x00"),
    ("refund", "0x00"),
    ("payments", "0x00"),
    ("fetch", "did:nv:00"),
    ("run", "session.toml"),
    ("provider", "init", "--name", "A"),
    ("provider", "serve"),
    ("provider", "status"),
    ("provider", "review"),
    ("provider", "approve", "sha256:00"),
    ("provider", "revoke", "sha256:00"),
    ("provider", "logs", "nvm-fl-0"),
    ("keys", "new", "key.json"),
]
FINE_ANYWHERE = {("devnet", "down")}
GROUPS = {"devnet", "publish", "provider", "keys"}


def words_of(command):
    return command[:2] if command[0] in GROUPS else command[:1]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty folder without a network, a key or a provider."""
    monkeypatch.chdir(tmp_path)
    for name in ("NEVERMINED_FL_NETWORK", "NEVERMINED_FL_KEY", "NEVERMINED_FL_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "mine.txt").write_text("mine")


def call(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code, *capsys.readouterr()


def registered(group=app, before=()):
    command = typer.main.get_command(group)
    for name, child in command.commands.items():
        if getattr(child, "commands", None):
            yield from ((name, below) for below in child.commands)
        else:
            yield (name,)


def test_the_version_is_told(capsys):
    assert call(capsys, "--version") == (0, f"nevermined-fl {__version__}\n", "")


def test_this_list_holds_every_command(capsys):
    call(capsys, "--help")
    assert {words_of(command) for command in COMMANDS} == set(registered())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(words_of(c)))
def test_help_ends_with_an_example_that_begins_with_the_command(capsys, command):
    code, out, _ = call(capsys, *words_of(command), "--help")
    assert code == 0
    assert "--json" in out
    example = " ".join(out[out.index("Example:") :].split())
    assert f"nevermined-fl {' '.join(words_of(command))}" in example


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in FINE_ANYWHERE and c != ("demo",)], ids=" ".join)
def test_a_mistake_is_one_json_object_and_code_1_without_a_traceback(capsys, command):
    code, out, err = call(capsys, *command, "--json")
    body = json.loads(out)
    assert out.count("\n") == 1
    assert code == 1
    if words_of(command) != ("devnet", "status"):
        assert {"error", "message", "hint"} <= set(body)
        assert body["error"] != "InternalError", body
        assert body["message"]
    assert "Traceback" not in out + err


@pytest.mark.parametrize("command", [("quote", "did:nv:00"), ("provider", "status"), ("run", "session.toml")])
def test_a_mistake_is_a_sentence_and_a_hint_for_people(capsys, command):
    code, out, err = call(capsys, *command)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "\nhint: " in err


@pytest.mark.parametrize("words", [("quote",), ("nosuch",), ("demo", "--rounds", "many"), ("demo", "--providers", "0")])
def test_a_command_line_without_sense_is_code_2(capsys, words):
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    code, out, _ = call(capsys, *words, "--json")
    assert (code, json.loads(out)["error"]) == (2, "UsageError")


def test_help_costs_no_heavy_library():
    lines = "import sys, nevermined_fl.cli.app as a\ntry: a.main(['--help'])\nexcept SystemExit: pass\n"
    lines += "print('heavy', [m for m in ('web3', 'numpy', 'flask', 'aiohttp', 'matplotlib') if m in sys.modules])"
    began = time.process_time()
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True, env=os.environ)
    assert "heavy []" in done.stdout
    assert time.process_time() - began < 1


def test_a_key_is_made_with_a_password_that_never_stands_in_argv(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NEVERMINED_FL_PASSWORD", "correct horse")
    code, out, _ = call(capsys, "keys", "new", "key.json", "--json")
    body = json.loads(out)
    assert code == 0
    assert body["address"].startswith("0x")
    assert oct((tmp_path / "key.json").stat().st_mode)[-3:] == "600"
    code, out, _ = call(capsys, "keys", "new", "key.json", "--json")
    assert code == 1
    assert "never overwritten" in json.loads(out)["message"]


@pytest.mark.parametrize("words", [("keys", "new", "file/key.json"), ("devnet", "up", "--home", "file/net")])
def test_a_place_that_cannot_be_written_is_named_and_no_bug_of_ours(capsys, tmp_path, monkeypatch, words):
    monkeypatch.setenv("NEVERMINED_FL_PASSWORD", "correct horse")
    (tmp_path / "file").touch()
    code, out, _ = call(capsys, *words, "--json")
    body = json.loads(out)
    assert (code, body["error"]) == (1, "FileError")
    assert body["message"].startswith(("file: ", str(tmp_path / "file")))


def test_a_network_file_that_is_missing_is_named_before_the_key(capsys):
    code, out, _ = call(capsys, "search", "digits", "--network", "absent.json", "--json")
    assert (code, json.loads(out)["message"]) == (1, "no network file absent.json")


def test_an_unknown_kind_is_refused_instead_of_finding_nothing(capsys):
    code, out, _ = call(capsys, "search", "digits", "--kind", "datasets", "--json")
    body = json.loads(out)
    assert code == 2
    assert "expected one of dataset, compute" in body["message"]


def test_a_network_that_does_not_run_is_nothing_to_stop(capsys):
    code, out, _ = call(capsys, "devnet", "down", "--json")
    assert (code, json.loads(out)["stopped"]) == (0, False)


def test_the_demo_refuses_an_unknown_dataset_before_it_starts_anything(capsys, tmp_path):
    code, out, _ = call(capsys, "demo", "--dataset", "mnist", "--json")
    assert code == 1
    assert "digits, breast-cancer" in json.loads(out)["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


def test_a_bug_of_ours_is_one_sentence_and_a_traceback_on_request(capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("oops")

    monkeypatch.setattr("nevermined_fl.cli.network.network.down", broken)
    code, out, err = call(capsys, "devnet", "down", "--json")
    assert (code, json.loads(out)["error"]) == (1, "InternalError")
    assert "Traceback" not in err
    monkeypatch.setenv("NEVERMINED_FL_DEBUG", "1")
    assert "Traceback" in call(capsys, "devnet", "down")[2]


def test_ctrl_c_while_the_command_loads_is_answered_as_later(capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nevermined_fl.cli.app.import_module", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", "digits", "--json"])
    assert (stop.value.code, json.loads(capsys.readouterr().out)["error"]) == (130, "Interrupted")
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", "digits"])
    assert (stop.value.code, capsys.readouterr().err) == (130, "error: interrupted\n")
