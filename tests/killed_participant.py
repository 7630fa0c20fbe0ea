"""A participant that is killed at the n-th change of a file, for every n: run as a program, which forks one for each.

It takes part in four rounds of SCAFFOLD with int8 changes, so that everything that can be kept is kept, and comes too
late in the second of them. What a coordinator would remember is in files beside it. Prints how many kills were tried, or what differs from the run that
nobody disturbed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

import numpy as np
from federation import did, make_plan

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.digests import digest_file
from nevermined_fl.errors import NotFound
from nevermined_fl.files import sha256_bytes, sha256_file
from nevermined_fl.messages import Evaluate, Finish, Joined, Train, Verdict
from nevermined_fl.participant import Credentials, Participant
from nevermined_fl.session import draw
from nevermined_fl.tokens import JobKey
from nevermined_fl.trainers.child import Measured, Trained

SESSION, ME, ROUNDS, LATE, KILLED = did("session"), did("me"), 4, 2, 9
INITIAL = safetensors.dump({"w": np.zeros(3000, np.float32), "b": np.ones(5, np.float64)})
PLAN = make_plan([ME], INITIAL, rounds=ROUNDS, strategy="scaffold", precision="int8")
CHANGES = ("os.rename", "os.remove", "os.truncate")


def noise(*seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {t.name: chance.normal(size=t.shape).astype(safetensors.NUMPY_DTYPES[t.dtype]) for t in PLAN.carried()}


class Coordinator:
    """A link and what is behind it: the models of all rounds, and in ``answers`` what the participant reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def prepare(cls, folder: Path) -> None:
        folder.mkdir()
        (folder / "first").write_bytes(INITIAL)
        precision.extend(folder / "first", folder / "0", PLAN.schema, PLAN.carried())
        for number in range(1, ROUNDS + 1):
            (folder / "to").write_bytes(safetensors.dump(noise(number)))
            names = {"residual_in": None, "residual_out": folder / "rest", "into": folder / f"change-{number}"}
            words = {"schema": PLAN.carried(), "precision": PLAN.precision}
            precision.encode_change(folder / str(number - 1), folder / "to", **names, **words)
            before, change = folder / str(number - 1), folder / f"change-{number}"
            precision.apply_change(before, change, folder / str(number), *words.values())

    def digest(self, number: int) -> str:
        return sha256_bytes(INITIAL) if number == 0 else sha256_file(self.folder / str(number))

    def answers(self) -> list[str]:
        path = self.folder / "answers"
        return path.read_text().split() if path.exists() else []

    async def join(self, request):
        return Joined(ME, SESSION, "bearer", PLAN.to_parameters())

    async def next_task(self, *, after, wait):
        turn = len(self.answers())
        number, is_evaluation = turn // 2 + 1, turn % 2
        if number > ROUNDS:
            return Finish(turn, "finished")
        if is_evaluation:
            return Evaluate(turn, number, self.digest(number), 60.0)
        return Train(turn, number, self.digest(number - 1), draw.training_seed(PLAN, number, ME), 60.0)

    async def fetch_model(self, digest, into):
        assert digest == self.digest(0), "a model that is one change away was fetched whole"
        shutil.copyfile(self.folder / "first", into.with_name("part"))
        into.with_name("part").replace(into)

    async def fetch_delta(self, base, digest, into):
        number = [self.digest(n) for n in range(ROUNDS + 1)].index(digest)
        if number == 0 or base != self.digest(number - 1):
            raise NotFound("no such change")
        shutil.copyfile(self.folder / f"change-{number}", into)

    async def send_update(self, *, round_number, digest, path):
        assert digest_file(path, digest) == digest

    async def report(self, report):
        if report.update in self.answers():
            return Verdict(accepted=True)
        if (late := f"late:{report.update}") in self.answers() or report.round == LATE:
            if late not in self.answers():
                self._count(late)
            return Verdict(accepted=False, code="late")
        return self._count(report.update)

    async def evaluated(self, evaluated):
        return self._count("evaluated")

    async def leave(self):
        raise AssertionError("it left")

    async def close(self):
        pass

    def _count(self, answer: str) -> Verdict:
        (self.folder / "part").write_text("\n".join([*self.answers(), answer]))
        (self.folder / "part").replace(self.folder / "answers")
        return Verdict(accepted=True)


class Trainer:
    """The same bits for the same model, seed and control variate; notes each training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def fit(self, model, seed, into, seconds, *, control=None):
        start = safetensors.load(model.read_bytes())
        assert set(start) == {"w", "b", "control/w", "control/b"}
        own = safetensors.load(control.read_bytes()) if control else {"w": 0, "b": 0}
        update = {name: start[name] + 0.1 * value for name, value in noise(seed).items()}
        update |= {name: update[name] + 0.5 * own[name] for name in own}
        into.write_bytes(safetensors.dump({name: value.astype(start[name].dtype) for name, value in update.items()}))
        with (self.folder / "trained").open("a") as file:
            file.write(f"{seed}\n")
        return Trained(sha256_file(into), 9, {})

    async def evaluate(self, model, seconds):
        return Measured(9, {})

    async def close(self):
        pass


def take_part(folder: Path) -> None:
    who = Credentials(SESSION, ME, token="token", key=JobKey.create(), fingerprint="memory")
    link, trainer = Coordinator(folder / "coordinator"), Trainer(folder)
    asyncio.run(Participant(PLAN, who, link=link, trainer=trainer, folder=folder / "job").run())


def forked(folder: Path, kill_at: int = 0) -> int:
    """Take part in a process of its own; its exit code."""
    if (pid := os.fork()) == 0:
        seen = 0

        def count(event: str, _: tuple) -> None:
            nonlocal seen
            seen += event in CHANGES
            if kill_at and seen == kill_at:
                os._exit(KILLED)

        sys.addaudithook(count)
        try:
            take_part(folder)
        except BaseException:  # noqa: BLE001  whatever it is, it ends this process alone
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finished(folder: Path) -> set[int]:
    path = folder / "job" / "kept" / "kept.json"
    return {row["seed"] for row in json.loads(path.read_text())} if path.exists() else set()


def trained(folder: Path) -> list[int]:
    path = folder / "trained"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def main(folder: Path) -> None:
    Coordinator.prepare(folder / "prepared")
    wanted, number = None, 0
    while True:
        place = folder / str(number)
        shutil.copytree(folder / "prepared", place / "coordinator")
        code = forked(place, number)
        done, before = finished(place), trained(place)
        if code == KILLED:
            assert forked(place) == 0, f"kill {number}: it did not come back"
        else:
            assert code == 0
        again = [seed for seed in done if trained(place).count(seed) != before.count(seed)]
        assert again == [], f"kill {number}: {again} was finished and trained again"
        found = (Coordinator(place / "coordinator").answers(), sorted(set(trained(place))))
        wanted = wanted or found
        assert found == wanted, f"kill {number}: {found} instead of {wanted}"
        shutil.rmtree(place)
        if number and code == 0:
            break
        number += 1
    print(number - 1)  # noqa: T201  the answer


if __name__ == "__main__":
    main(Path(sys.argv[1]))
