"""The buyer's process: what it gets, what it cannot reach, how it ends."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from federation import HYPERPARAMETERS, did, make_plan, write_algorithm, write_datasets

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import SettingsError, TrainerError
from nevermined_fl.trainers import Trainer, initial_model, load_table, sandbox
from nevermined_fl.trainers.child import Place, TrainerTask

HEAD = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update

class Mine(Trainer):
    def initialize(self, seed):
        return {"w": np.zeros(2, np.float32)}
    def evaluate(self, model):
        return Evaluation(3, {})
"""


def algorithm(tmp_path: Path, fit: str) -> Place:
    body = textwrap.indent(textwrap.dedent(fit), " " * 8)
    (tmp_path / "algorithm.py").write_text(f"{HEAD}    def fit(self, model, seed):\n{body}\n")
    for name in ("inputs", "scratch"):
        (tmp_path / name).mkdir(exist_ok=True)
    return Place(tmp_path / "algorithm.py", tmp_path / "inputs", tmp_path / "scratch", tmp_path / "raw.log")


async def fit(tmp_path: Path, place: Place, seconds: float = 60.0):
    initial = safetensors.dump({"w": np.array([1.5, -2.5], np.float32)})
    (tmp_path / "model").write_bytes(initial)
    task = TrainerTask(place, make_plan([did("a")], initial, metrics=()))
    try:
        return await task.fit(tmp_path / "model", 42, tmp_path / "update", seconds)
    finally:
        await task.close()


async def test_the_trainer_gets_model_seed_hyperparameters_and_paths(tmp_path):
    place = algorithm(
        tmp_path,
        """
        assert seed == 42 and self.hyperparameters["classes"] == 3, seed
        assert os.environ["NEVERMINED_INPUTS_PATH"] == str(self.inputs)
        assert (Path(os.environ["NEVERMINED_TRANSFORMATIONS_PATH"]) / "algorithm.py").exists()
        Path(os.environ["NEVERMINED_OUTPUTS_PATH"], "mine").write_text("stays here")
        return Update({"w": model["w"] * np.float32(2)}, 3)
        """,
    )
    trained = await fit(tmp_path, place)
    assert trained.examples == 3
    assert safetensors.load((tmp_path / "update").read_bytes())["w"].tolist() == [3.0, -5.0]


async def test_the_trainer_sees_no_variable_of_ours_and_one_thread(tmp_path, monkeypatch):
    monkeypatch.setenv("NEVERMINED_FL_PASSWORD", "secret")
    place = algorithm(tmp_path, "print(json.dumps(dict(os.environ)), os.getcwd())\nreturn Update({'w': model['w']}, 1)")
    await fit(tmp_path, place)
    raw = (tmp_path / "raw.log").read_text()
    assert "secret" not in raw
    assert '"OPENBLAS_NUM_THREADS": "1"' in raw
    assert str(tmp_path / "scratch") in raw


async def test_a_link_in_the_models_place_leads_nowhere(tmp_path):
    """The participant writes the model from outside of the sandbox: it could be made to write over any file of its own."""
    (tmp_path / "job.key").write_text("the key")
    place = algorithm(
        tmp_path,
        f"""
        import threading
        def link():
            while True:
                try:
                    os.symlink({str(tmp_path / "job.key")!r}, "model.safetensors")
                except OSError:
                    pass
        threading.Thread(target=link, daemon=True).start()
        return Update({{"w": model["w"]}}, 3)
        """,
    )
    initial = safetensors.dump({"w": np.array([1.5, -2.5], np.float32)})
    (tmp_path / "model").write_bytes(initial)
    task = TrainerTask(place, make_plan([did("a")], initial, metrics=()))
    with suppress(TrainerError):  # it may lose its own model on the way
        for _ in range(20):
            await task.fit(tmp_path / "model", 42, tmp_path / "update", 30)
    await task.close()
    assert (tmp_path / "job.key").read_text() == "the key"


@pytest.mark.bubblewrap
async def test_memory_file_systems_hold_little(tmp_path):
    """Nobody counts what lies in them: an algorithm could fill the machine's memory."""
    place = algorithm(
        tmp_path,
        """
        for folder in ("/tmp", "/dev/shm", "/", "/dev"):
            try:
                with open(os.path.join(folder, "much"), "wb") as file:
                    file.write(bytes(80 * 1024**2))
                print("KEPT", folder)
            except OSError as error:
                print(folder, error)
        return Update({"w": model["w"]}, 3)
        """,
    )
    await fit(tmp_path, place)
    assert "KEPT" not in (tmp_path / "raw.log").read_text()


@pytest.mark.bubblewrap
async def test_inside_bubblewrap_there_is_no_key_no_network_and_nothing_to_write(tmp_path):
    (tmp_path / "job.key").write_text("the key")
    place = algorithm(
        tmp_path,
        f"""
        import socket
        seen = []
        for path in ({str(tmp_path / "job.key")!r}, "/proc/{os.getpid()}/environ", "/etc/passwd"):
            try:
                seen.append(open(path).read())
            except OSError:
                pass
        for path in ({str(tmp_path / "algorithm.py")!r}, "{tmp_path}/inputs/new", "/usr/new"):
            try:
                open(path, "a").close()
                seen.append(path)
            except OSError:
                pass
        try:
            socket.create_connection(("127.0.0.1", 22), 1)
        except ConnectionRefusedError:
            pass
        except OSError as error:
            seen.append("network down")
        print("seen", [text for text in seen if text], [name for _, name in socket.if_nameindex()])
        return Update({{"w": model["w"]}}, 1)
        """,
    )
    await fit(tmp_path, place)
    assert "seen [] ['lo']" in (tmp_path / "raw.log").read_text()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise KeyError('73194682.5')", "KeyError"),
        ("class Canary(Exception): pass\nraise Canary()", "Exception"),
        ("sys.exit(3)", "SystemExit"),
        ("return 5", "TypeError"),
        ("return Update({'w': [1, 2]}, 1)", "AttributeError"),
        ("os._exit(0)", "ChildProcessError"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ChildProcessError"),
        ("os.write(int(sys.argv[3]), b'\\xff\\xff\\xff\\xff'); os._exit(0)", "ChildProcessError"),
        ("os.write(int(sys.argv[3]), b'\\x00\\x00\\x00\\x02[]'); os._exit(0)", "ChildProcessError"),
    ],
)
async def test_every_way_to_fail_is_a_trainer_error_of_a_known_kind(tmp_path, body, kind):
    with pytest.raises(TrainerError) as caught:
        await fit(tmp_path, algorithm(tmp_path, body))
    assert caught.value.kind == kind
    assert "73194682" not in str(caught.value)


async def test_an_algorithm_that_takes_too_long_is_killed(tmp_path):
    place = algorithm(tmp_path, "print(os.getpid(), flush=True)\nwhile True: time.sleep(1)")
    with pytest.raises(TrainerError) as caught:
        await fit(tmp_path, place, 1.5)
    assert caught.value.kind == "TimeoutError"
    if sandbox.isolation() == "none":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "raw.log").read_text()), signal.SIGTERM)


def test_the_initial_model_and_its_schema_come_of_the_algorithm_without_data(tmp_path):
    raw, schema = initial_model(write_algorithm(tmp_path), HYPERPARAMETERS, 11)
    again, _ = initial_model(write_algorithm(tmp_path), HYPERPARAMETERS, 11)
    other, _ = initial_model(write_algorithm(tmp_path), HYPERPARAMETERS, 12)
    assert raw == again != other
    assert [(t.name, t.dtype, t.shape) for t in schema] == [("b", "F32", (3,)), ("w", "F32", (6, 3))]


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("def broken(:\n", "SyntaxError", 1),
        ("x = 1\n", "Refused", 0),
        ("import nonexistent_module\n", "ModuleNotFoundError", 1),
    ],
)
def test_a_file_that_is_no_algorithm_says_why(tmp_path, text, kind, line):
    with pytest.raises(TrainerError) as caught:
        initial_model(write_algorithm(tmp_path, text), {}, 1)
    assert (caught.value.kind, caught.value.line) == (kind, line)


def test_a_missing_file_is_the_users_mistake(tmp_path):
    with pytest.raises(SettingsError):
        initial_model(tmp_path / "none.py", {}, 1)


def test_one_table_is_found_wherever_it_lies(tmp_path):
    write_datasets(tmp_path, (4,))
    columns, table = load_table(tmp_path)
    assert columns == ("p0", "p1", "p2", "p3", "p4", "p5", "label")
    assert table.shape == (4, 7)
    (tmp_path / "deeper").mkdir()
    write_datasets(tmp_path / "deeper", (4,))
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path)


def test_without_bubblewrap_the_command_is_the_plain_one(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    sandbox._prefix.cache_clear()
    try:
        assert sandbox.isolation() == "none"
        assert sandbox.wrap(["a"], read_only=(), scratch=Path()) == ["a"]
    finally:
        monkeypatch.undo()
        sandbox._prefix.cache_clear()


def test_a_trainer_says_what_its_subclass_must_do(tmp_path):
    trainer = Trainer(inputs=tmp_path, hyperparameters={"lr": 1})
    for call in (lambda: trainer.initialize(1), lambda: trainer.fit({}, 1), lambda: trainer.evaluate({})):
        with pytest.raises(NotImplementedError):
            call()
    assert (trainer.inputs, trainer.hyperparameters, sys.version_info >= (3, 11)) == (tmp_path, {"lr": 1}, True)
