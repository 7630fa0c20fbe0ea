"""What was bought: how many looks at the data may a coordinator ask for?

Every answer tells something about the data, so a participant gives no more of them than the plan says: of each round and
attempt one training, with the seed that the plan gives it, and of each evaluated round one evaluation. A coordinator that
lost a model asks again for the rounds that made it, perhaps with other models than before: a few times that is believed.
The same asked again is the same answer, and free.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from nevermined_fl.errors import RemoteProtocolError
from nevermined_fl.files import append_line
from nevermined_fl.messages import Evaluate, Train
from nevermined_fl.session import draw
from nevermined_fl.session.plan import FROM_PARTICIPANT

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.messages import Initialize
    from nevermined_fl.session import Plan

__all__ = ["Bought"]

_MODELS = 3
"""Models with which the same training or evaluation may be asked for: the session's, and those of two that were lost."""


class Bought:
    """Refuses what the plan does not say, and remembers in one file what was asked, over restarts too.

    A line of the file is what was asked for and with which model.
    """

    def __init__(self, path: Path, plan: Plan, participant: str) -> None:
        self._path = path
        self._plan = plan
        self._participant = participant
        self._asked = self._load()

    def judge(self, task: Train | Evaluate | Initialize) -> None:
        """Raises RemoteProtocolError: this is more than was bought."""
        if not self._is_planned(task):
            raise RemoteProtocolError("the coordinator asks for more than its plan says", code="other_plan")
        if isinstance(task, Train | Evaluate):
            self._note(_name(task), task.model)

    def _is_planned(self, task: Train | Evaluate | Initialize) -> bool:
        plan = self._plan
        if isinstance(task, Train):
            is_round = 1 <= task.round <= plan.rounds and task.attempt <= plan.repeats
            seed = draw.training_seed(plan, task.round, self._participant, task.attempt)
            return is_round and task.seed == seed
        if isinstance(task, Evaluate):
            return 1 <= task.round <= plan.rounds and plan.evaluates(task.round)
        return plan.initial_model == FROM_PARTICIPANT and task.seed == plan.seed

    def _note(self, name: str, model: str) -> None:
        models = self._asked.setdefault(name, [])
        if model in models:
            return
        if len(models) >= _MODELS:
            raise RemoteProtocolError("the coordinator asks for one round with ever other models", code="other_plan")
        # A line of its own even where a full disk left half of one.
        append_line(self._path, f"\n{json.dumps([name, model])}")
        models.append(model)

    def _load(self) -> dict[str, list[str]]:
        asked: dict[str, list[str]] = {}
        for line in self._path.read_bytes().splitlines() if self._path.exists() else ():
            with suppress(ValueError, TypeError):
                name, model = json.loads(line)
                asked.setdefault(str(name), []).append(str(model))
        return asked


def _name(task: Train | Evaluate) -> str:
    """Attempts that share a seed are the same work."""
    return f"train {task.round} {task.seed}" if isinstance(task, Train) else f"evaluate {task.round}"
