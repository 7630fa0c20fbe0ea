"""What was bought: how many looks at the data may a coordinator ask for?

Every answer tells something about the data, so a participant gives no more of them than the plan says: of each round and
attempt one training, with the seed that the plan gives it, of each evaluated round one evaluation, and one first model.
The same asked again is the same answer, and free: of evaluations always, of training as long as its update is kept. A
coordinator that lost a model asks again for the rounds that made it, perhaps with other models than before: a few times
that is believed, and the work done again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.files import append_line
from nevermined_fl.messages import Evaluate, Train
from nevermined_fl.session import draw
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.trainers.child import Measured

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.messages import Initialize
    from nevermined_fl.session import Plan

__all__ = ["Bought"]

_TIMES = 3
"""How often the same work is done: once as it was bought, and twice more for what a coordinator lost."""


class Bought:
    """Refuses what the plan does not say, and remembers in one file what was done, over restarts too.

    A line of the file is what was done and with which model, and of an evaluation what it gave. It is written before
    anything of the work leaves: who is killed at work has given nothing, and may do it again.
    """

    def __init__(self, path: Path, plan: Plan, participant: str) -> None:
        self._path = path
        self._plan = plan
        self._participant = participant
        self._done = self._load()

    def judge(self, task: Train | Evaluate | Initialize) -> None:
        """Raises RemoteProtocolError: the plan says nothing of it."""
        if not self._is_planned(task):
            raise RemoteProtocolError("the coordinator asks for more than its plan says", code="other_plan")

    def judge_work(self, task: Train | Evaluate | Initialize) -> None:
        """Raises RemoteProtocolError: it was done as often as is believed, and the answer is kept no more."""
        if len(self._done.get(_name(task), ())) >= _TIMES:
            raise RemoteProtocolError("the coordinator asks for the same work ever again", code="other_plan")

    def note(self, task: Train | Evaluate | Initialize, measured: Measured | None = None) -> None:
        """The work is done; of an evaluation, what it gave."""
        line: list[Any] = [_name(task), getattr(task, "model", "")]
        line += [] if measured is None else [asdict(measured)]
        # A line of its own even where a full disk left half of one.
        append_line(self._path, f"\n{json.dumps(line)}")
        self._done.setdefault(line[0], []).append((line[1], measured))

    def measured(self, task: Evaluate) -> Measured | None:
        """What this evaluation gave, if it was ever done."""
        done = self._done.get(_name(task), ())
        return next((measured for model, measured in done if model == task.model and measured), None)

    def _is_planned(self, task: Train | Evaluate | Initialize) -> bool:
        plan = self._plan
        if isinstance(task, Train):
            is_round = 1 <= task.round <= plan.rounds and task.attempt <= plan.repeats
            seed = draw.training_seed(plan, task.round, self._participant, task.attempt)
            return is_round and task.seed == seed
        if isinstance(task, Evaluate):
            return 1 <= task.round <= plan.rounds and plan.evaluates(task.round)
        return plan.initial_model == FROM_PARTICIPANT and task.seed == plan.seed

    def _load(self) -> dict[str, list[tuple[str, Measured | None]]]:
        found: dict[str, list[tuple[str, Measured | None]]] = {}
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            with suppress(ValueError, TypeError):
                name, model, *gave = json.loads(line)
                found.setdefault(str(name), []).append((str(model), Measured(**gave[0]) if gave else None))
        return found


def _name(task: Train | Evaluate | Initialize) -> str:
    """Attempts that share a seed are the same work."""
    if isinstance(task, Train):
        return f"train {task.round} {task.seed}"
    return f"evaluate {task.round}" if isinstance(task, Evaluate) else "initialize"
