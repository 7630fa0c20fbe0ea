"""One session of real processes that may be killed: a coordinator behind TLS, participants that count their trainings.

The coordinator is what its image runs: Driver and HttpServer, with admission by a table. A participant is the library's
over HttpLink; only the buyer's code is computed in place instead of in a sandboxed child, and leaves a durable line
for each training that it finished.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from federation import did, make_plan
from forks import Forked, all_ended, free_ports
from transport_worlds import SESSION, make_certificate

from nevermined_fl import logs
from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import Driver
from nevermined_fl.driver.room import wait_for_room
from nevermined_fl.errors import StorageFull
from nevermined_fl.files import append_line, sha256_bytes, write_atomic
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.ports import Admitted
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers import Update
from nevermined_fl.trainers.child import Measured, Trained
from nevermined_fl.trainers.correction import CONTROL
from nevermined_fl.trainers.correction import make as make_correction
from nevermined_fl.transports.http.client import HttpLink, fingerprint_of, pinned_context
from nevermined_fl.transports.http.server import HttpServer, server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEMBERS = tuple(sorted(did(name) for name in ("one", "two", "three")))
ROUNDS = 3
PATIENT = 30.0
"""Seconds that a whole session may take; an undisturbed one takes half of one."""

_FAREWELL = 2.0
"""Seconds that a coordinator waits for a participant that was killed when all was over."""

KINDS = {
    "fedadam": {"strategy": "fedadam", "strategy_options": (("learning_rate", 0.05),), "checkpoint_every": 2},
    "int8": {"precision": "int8"},
    "float": {"arithmetic": "float", "strategy": "fedavgm"},
    "scaffold": {"strategy": "scaffold", "checkpoint_every": 2, "evaluate_every": 3},
    "first": {"initial_model": FROM_PARTICIPANT, "evaluate_every": 2, "precision": "bf16", "strategy": "median"},
}
"""What the sessions differ in: server state and checkpoints, compressed changes with their residuals, plain sums; state of
the server and of each participant, with checkpoints of the model's own tensors alone; a first model that a participant makes,
with rounds that nobody evaluates."""


@dataclass(frozen=True)
class Ground:
    """What all worlds of one kind share and nobody changes: plan, initial model, keys, certificate."""

    folder: Path
    kind: str
    members: tuple[str, ...] = MEMBERS
    changes: dict = field(default_factory=dict)

    @classmethod
    def make(cls, folder, kind, members=MEMBERS, rows=60, **changes):
        folder.mkdir(parents=True)
        rng = np.random.default_rng(3)
        tensors = {"w": rng.normal(0, 1, (rows, 40)).astype(np.float32), "b": rng.normal(0, 1, 40).astype(np.float32)}
        (folder / "initial.safetensors").write_bytes(safetensors.dump(tensors))
        make_certificate(folder)
        for member in members:
            JobKey.create().save(folder / f"{member[7:]}.key")
        return cls(folder, kind, members, changes)

    @property
    def initial(self):
        return self.folder / "initial.safetensors"

    @cached_property
    def plan(self):
        return make_plan(
            self.members, self.initial.read_bytes(), **({"rounds": ROUNDS} | KINDS[self.kind] | self.changes)
        )

    @cached_property
    def certificate(self):
        return (self.folder / "tls.crt").read_text()

    def key(self, member):
        return JobKey.load(self.folder / f"{member[7:]}.key")

    async def admit(self, token):
        """Everybody who has a key."""
        agreement = "0x" + hashlib.sha256(token.encode()).hexdigest()
        return Admitted(token, agreement, self.key(token).thumbprint)


class Buyer:
    """The buyer's code: deterministic, cheap, and each finished training stands in ``trainings.jsonl``."""

    def __init__(self, member, folder, plan, pause=0.0, instance=""):
        self._plan = plan
        self._place = int(member[7:15], 16)
        self._twin = len(instance) and ord(instance)
        self._folder = folder
        self._pause = pause

    async def fit(self, model, seed, into, seconds, *, control=None):
        """As TrainerTask.fit: one step down the gradient of ``0.15 |y|^2``, with noise, as the strategy corrects it."""
        if self._pause:
            await asyncio.sleep(self._pause)
        tensors = safetensors.load(model.read_bytes())
        before = {tensor.name: tensors[tensor.name] for tensor in self._plan.schema}
        # The initial model has no control variates yet: they begin with zeros.
        server = {name: tensors.get(f"{CONTROL}/{name}", np.zeros_like(before[name])) for name in before}
        own = None if control is None else safetensors.load(control.read_bytes())
        corrected = make_correction(self._plan.strategy, dict(self._plan.strategy_options), before, server, own)
        rng = np.random.default_rng([self._place, seed, self._twin])
        noise = {name: rng.normal(0, 0.1, tensor.shape).astype(tensor.dtype) for name, tensor in before.items()}
        gradients = {name: np.float32(0.3) * before[name] - noise[name] for name in before}
        after = {name: before[name] - step for name, step in corrected.gradients(gradients, before).items()}
        raw = safetensors.dump(after | corrected.extras(Update(after, 1, step=1.0)))
        write_atomic(into, raw)
        line = {"seed": seed, "update": sha256_bytes(raw), "model": model.stem}
        append_line(self._folder / "trainings.jsonl", json.dumps(line))
        return Trained(sha256_bytes(raw), 3 + self._place % 97, {"accuracy": 0.5})

    async def initialize(self, seed, into, seconds):
        """As TrainerTask.initialize: a function of the seed alone."""
        rng = np.random.default_rng(seed)
        tensors = {
            tensor.name: rng.normal(0, 1, tensor.shape).astype(safetensors.NUMPY_DTYPES[tensor.dtype])
            for tensor in self._plan.schema
        }
        raw = safetensors.dump(tensors)
        write_atomic(into, raw)
        return Trained(sha256_bytes(raw), 1, {})

    async def evaluate(self, model, seconds):
        """As TrainerTask.evaluate."""
        weights = safetensors.load(model.read_bytes())["w"]
        return Measured(3 + self._place % 97, {"accuracy": float(1 / (1 + np.abs(weights).mean()))})

    async def close(self):
        """As TrainerTask.close."""


def stay():
    """A process that is in no other network than the test."""


@dataclass(frozen=True)
class Roads:
    """How participants get to the coordinator: ``home`` and ``abroad`` bring a new process into its network.

    ``door`` is the host and port that participants dial, where that is not the coordinator's own.
    """

    host: str = "127.0.0.1"
    port: int = 0
    home: Callable = stay
    abroad: Callable = stay
    door: tuple | None = None
    proxy: str = ""


@dataclass
class World:
    """One session in its own folder; processes of it may die and be started again with the same words."""

    ground: Ground
    folder: Path
    slot: int
    roads: Roads = field(default_factory=Roads)
    processes: list = field(default_factory=list)

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        self.port = self.roads.port or free_ports(self.slot, 1)[0]

    @property
    def outputs(self):
        """What is published."""
        return self.folder / "coordinator" / "outputs"

    def coordinator(self, tracer=None, met=None):
        """Start the coordinator; with ``met`` its boundaries are written there in the end."""
        return self._fork(lambda: _coordinator(self, tracer, met), "coordinator.log")

    def participant(self, member, tracer=None, met=None, **options):
        """Start a participant."""
        return self._fork(lambda: _participant(self, member, tracer, met, options), f"{member[7:15]}.log")

    def helper(self, work, log):
        """Another process of this world: a proxy, an attacker."""
        return self._fork(work, log)

    def participants(self, **options):
        """Start them all."""
        return [self.participant(member, **options) for member in self.ground.members]

    def place(self, member, instance=""):
        """A participant's folder; one of two with one identity has an instance's name."""
        return self.folder / "participants" / f"{member[7:15]}{instance}"

    def story(self, member, instance=""):
        """What a participant told so far."""
        return _lines(self.place(member, instance) / "events.jsonl")

    def all_ended(self):
        """A context that leaves no process."""
        return all_ended(self.processes)

    def _fork(self, work, log):
        process = Forked(work, self.folder / log)
        self.processes.append(process)
        return process

    def finish(self, process, start, seconds=PATIENT):
        """Wait for ``process`` to end well, starting it again by ``start`` as often as it was killed."""
        until, deaths = time.monotonic() + seconds, 0
        while (code := process.wait(until - time.monotonic())) == -9:
            process, deaths = start(), deaths + 1
        assert code == 0, f"ended with {code}: {self.tail()}"
        return deaths

    def await_all(self, processes):
        """Wait until all of them ended well."""
        until = time.monotonic() + PATIENT
        for process in processes:
            code = process.wait(until - time.monotonic())
            assert code == 0, f"a participant ended with {code}: {self.tail()}"

    def tail(self):
        """The ends of the logs, for whoever mends it."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    # --- what it left ---

    def model(self):
        """The published model's bytes."""
        return (self.outputs / "model.safetensors").read_bytes()

    def outcome(self):
        """All that must be equal between two undisturbed sessions of one ground."""
        outputs = self.outputs
        names = sorted(str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file())
        return {name: sha256_bytes((outputs / name).read_bytes()) for name in names}

    def trainings(self, member):
        """Seeds of the trainings that a participant finished, in order."""
        return [line["seed"] for line in _lines(self.place(member) / "trainings.jsonl")]

    def events(self):
        """The session's story."""
        return _lines(self.folder / "coordinator" / "events.jsonl")

    def judge(self, outcome):
        """Whether the session ended as the undisturbed one, and left nothing behind."""
        found = self.outcome()
        assert found == outcome, (
            f"outputs differ: {sorted(k for k in {*found, *outcome} if found.get(k) != outcome.get(k))}"
        )
        for member in self.ground.members:
            seeds = self.trainings(member)
            assert len(seeds) == len(set(seeds)) == self.ground.plan.rounds, (
                f"{member[7:15]} trained {len(seeds)} times"
            )
        self.judge_story()
        self.judge_rest()

    def judge_story(self):
        """Each round was begun and committed once; each line of the journal was told once."""
        lines = self.events()
        rounds = list(range(1, self.ground.plan.rounds + 1))
        for name in ("round_started", "round_committed"):
            told = [line["round"] for line in lines if line["event"] == name]
            assert told == rounds, f"{name}: {told}"
        seen = [json.dumps({**line, "time": 0}, sort_keys=True) for line in lines if "n" in line]
        assert len(seen) == len(set(seen)), "a line was told twice"
        assert [line["event"] for line in lines].count("finished") == 1

    def judge_rest(self):
        """No update and no half-written file stayed."""
        coordinator = self.folder / "coordinator"
        spool = sorted(path.name for path in (coordinator / "spool").iterdir())
        assert spool == [], f"in the spool: {spool}"
        parts = [path for path in self.folder.rglob("*.part") if path.is_file()]
        assert parts == [], f"half-written files: {parts}"
        models = sorted(path.name for path in (coordinator / "models").iterdir())
        assert len(models) == 1, f"models: {models}"


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _coordinator(world, tracer, met):
    world.roads.home()
    logs.configure("warning")
    if tracer is not None:
        tracer.start()
    code = asyncio.run(_coordinate(world))
    if met is not None:
        tracer.save(met)
    return code


async def _driver(world):
    ground, folder = world.ground, world.folder / "coordinator"
    while True:
        try:
            return Driver(
                ground.plan,
                SESSION,
                folder=folder,
                initial=ground.initial,
                outputs=world.outputs,
                admission=ground,
                fingerprint=fingerprint_of(ground.certificate),
            )
        except StorageFull as full:
            await wait_for_room(folder, full)


async def _coordinate(world):
    ground = world.ground
    driver = await _driver(world)
    server = HttpServer(driver.service, status=dict)
    try:
        context = server_context(ground.folder / "tls.crt", ground.folder / "tls.key")
        await server.start(world.roads.host, world.port, context)
        outcome = await driver.run(farewell=_FAREWELL)
    finally:
        await server.close()
        driver.close()
    return 0 if outcome.finished else 4


def _participant(world, member, tracer, met, options):
    world.roads.abroad()
    logs.configure("warning")
    if tracer is not None:
        tracer.start()
    finish = asyncio.run(_participate(world, member, **options))
    if met is not None:
        tracer.save(met)
    return 0 if finish.outcome == "finished" else 4


def make_link(world, member, patience=30.0):
    """The member's link to the world's coordinator."""
    ground = world.ground
    context = pinned_context(ground.certificate, fingerprint_of(ground.certificate))
    host, port = world.roads.door or (world.roads.host, world.port)
    url, key = f"https://{host}:{port}", ground.key(member)
    return HttpLink(url, key=key, context=context, patience=patience, proxy=world.roads.proxy)


async def _participate(world, member, instance="", pause=0.0):
    ground, folder = world.ground, world.place(member, instance)
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint = fingerprint_of(ground.certificate)
    who = Credentials(SESSION, member, token=member, key=ground.key(member), fingerprint=fingerprint)
    link, trainer = make_link(world, member), Buyer(member, folder, ground.plan, pause, instance)
    try:
        return await Participant(ground.plan, who, link=link, trainer=trainer, folder=folder).run()
    finally:
        await trainer.close()
        await link.close()
