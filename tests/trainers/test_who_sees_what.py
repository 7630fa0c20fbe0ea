"""Who sees what: a trainer that holds a numeric canary and tries every door; nothing that leaves may carry it.

As positive control each one also prints the canary, which must turn up in the provider's raw output.
"""

from __future__ import annotations

import asyncio
import json
import struct

import numpy as np
import pytest
from federation import did, make_plan
from transport_worlds import SESSION, World

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import Driver
from nevermined_fl.errors import TrainerError
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.session import Metric
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers import sandbox
from nevermined_fl.trainers.child import Place, TrainerTask
from nevermined_fl.transports.memory import FINGERPRINT, MemoryLink

CANARY = 73194682.5
TRACES = [b"73194682", struct.pack("<d", CANARY), struct.pack("<f", CANARY), struct.pack(">d", CANARY), b"canary"]

ALGORITHM = """
import os, sys
import numpy as np
from nevermined_fl.trainers import Evaluation, Trainer, Update, load_table

class Leaky(Trainer):
    def initialize(self, seed):
        return {"w": np.zeros(2, np.float32), "b": np.zeros(1)}
    def fit(self, model, seed):
        canary = float(load_table(self.inputs)[1][0, 0])
        print("canary is", canary, flush=True)
        tensors, examples, metrics = dict(model), 1, {"loss": 0.5}
        LEAK
        return Update(tensors, examples, metrics)
    def evaluate(self, model):
        canary = float(load_table(self.inputs)[1][0, 0])
        metrics = {"loss": 0.25}
        MEASURE
        return Evaluation(1, metrics)
"""

DOORS = {
    "stdout": "sys.stdout.write(str(canary)); sys.stderr.write(str(canary)); sys.stdout.flush()",
    "exception text": "raise ValueError(f'canary {canary}')",
    "exception type": "raise type(f'canary{int(canary)}', (Exception,), {})()",
    "exception line": "exec(compile('\\n' * 2000 + 'raise KeyError(canary)', __file__, 'exec'), {'canary': canary})",
    "exception notes": "error = KeyError(1); error.add_note(str(canary)); raise error",
    "exit text": "sys.exit(f'canary {canary}')",
    "metric name": "metrics[f'canary {canary}'] = 0.5",
    "metric value": "metrics['loss'] = canary",
    "metric text": "metrics['loss'] = str(canary)",
    "tensor name": "tensors[f'canary {canary}'] = tensors.pop('b')",
    "extra tensor": "tensors['extra'] = np.array([canary])",
    "wrong dtype": "tensors['w'] = np.array([canary, 0.0])",
    "wrong shape": "tensors['b'] = np.array([canary, 1.0])",
    "sample count": "examples = int(canary)",
    "negative count": "examples = -int(canary)",
    "own frame": (
        "import json; raw = json.dumps({'examples': 1, 'metrics': {}, 'canary': canary, 'error': {'kind': str(canary),"
        " 'line': int(canary)}}).encode(); os.write(int(sys.argv[3]), len(raw).to_bytes(4, 'big') + raw); os._exit(0)"
    ),
    "scratch files": "open('canary.txt', 'w').write(str(canary)); open('update.safetensors', 'w').write(str(canary))",
}
if sandbox.isolation() != "none":
    # Without isolation the buyer's code can write whatever the provider's job can: such jobs are refused off devnet.
    DOORS["our own files"] = "open('../events.jsonl', 'a').write(str(canary))"


class RecordingLink(MemoryLink):
    """Everything that a participant sends, as bytes."""

    def __init__(self, service, key):
        super().__init__(service, key)
        self.sent = []

    async def join(self, request):
        self.sent.append(repr(request).encode())
        return await super().join(request)

    async def send_update(self, *, round_number, digest, path):
        self.sent.append(path.read_bytes())
        await super().send_update(round_number=round_number, digest=digest, path=path)

    async def report(self, report):
        self.sent.append(repr(report).encode())
        return await super().report(report)

    async def evaluated(self, evaluated):
        self.sent.append(repr(evaluated).encode())
        return await super().evaluated(evaluated)


async def take_part(tmp_path, leak: str, measure: str = "pass"):
    """One participant, one round; what left, and how it ended."""
    name = did("canary's owner")
    folder = tmp_path / "participant"
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / "data.csv").write_text(f"value\n{CANARY}\n")
    (folder / "algorithm.py").write_text(ALGORITHM.replace("LEAK", leak).replace("MEASURE", measure))
    initial = safetensors.dump({"w": np.zeros(2, np.float32), "b": np.zeros(1)})
    (tmp_path / "initial.safetensors").write_bytes(initial)
    plan = make_plan([name], initial, rounds=1, metrics=(Metric("loss", 0.0, 1e6),), round_timeout=20.0)
    world = World.__new__(World)  # its admission alone
    world.keys = {name: JobKey.create()}
    driver = Driver(
        plan,
        SESSION,
        folder=tmp_path / "coordinator",
        initial=tmp_path / "initial.safetensors",
        outputs=tmp_path / "outputs",
        admission=world,
        fingerprint=FINGERPRINT,
    )
    link = RecordingLink(driver.service, world.keys[name])
    place = Place(folder / "algorithm.py", folder / "inputs", folder / "scratch", folder / "raw.log")
    trainer = TrainerTask(place, plan)
    who = Credentials(SESSION, name, token=name, key=world.keys[name], fingerprint=FINGERPRINT)
    ended = "finished"
    try:
        running = Participant(plan, who, link=link, trainer=trainer, folder=folder)
        conducting = asyncio.create_task(driver.run(farewell=0.0))
        try:
            await running.run()
        except TrainerError as error:
            ended = f"{error} {error.kind} {error.line}"
            driver.stop("the algorithm failed")
        await conducting
    finally:
        await trainer.close()
        driver.close()
    told = [path.read_bytes() for path in (folder / "events.jsonl", tmp_path / "coordinator" / "events.jsonl")]
    results = [path.read_bytes() for path in (tmp_path / "outputs").iterdir()]
    return [*link.sent, *told, *results, ended.encode()], ended, (folder / "raw.log").read_bytes()


@pytest.mark.parametrize("door", sorted(DOORS))
async def test_the_canary_leaves_through_no_door(tmp_path, door):
    leak = DOORS[door]
    left, _, raw = await take_part(tmp_path, leak)
    for trace in TRACES:
        assert not [part for part in left if trace in part]
    assert b"canary is 73194682.5" in raw


@pytest.mark.parametrize(
    "measure", ["metrics['loss'] = canary", "metrics[str(canary)] = 0.5", "raise KeyError(canary)"]
)
async def test_the_canary_does_not_leave_with_an_evaluation(tmp_path, measure):
    left, ended, raw = await take_part(tmp_path, "pass", measure)
    for trace in TRACES:
        assert not [part for part in left if trace in part]
    assert ended != "finished"
    assert b"73194682.5" in raw


async def test_an_honest_update_does_leave_and_so_would_a_canary_inside_the_weights(tmp_path):
    """What the documentation says plainly: weights themselves can carry information."""
    left, ended, _ = await take_part(tmp_path, "tensors['b'] = np.array([canary])")
    assert ended == "finished"
    assert [part for part in left if struct.pack("<d", CANARY) in part]
    assert json.loads((tmp_path / "outputs" / "result.json").read_text())["outcome"] == "finished"
