"""What does ``simulate`` need beyond the command line: settings from several places, and data where none is named?"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.devnet import demo_data
from nevermined_fl.errors import SessionFailed, SettingsError, TrainerError
from nevermined_fl.marketplace.progress import NOTEWORTHY
from nevermined_fl.marketplace.publishing import PlanSettings, prepare_algorithm
from nevermined_fl.marketplace.session_file import load_session
from nevermined_fl.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Rehearsal", "Round", "run", "settings"]

_DEMO_PROVIDERS = 3
_OUTPUT_LINES = 20
_SHOWN = {"round_started", "evaluated", "finished", "failed"} | NOTEWORTHY


@dataclass(frozen=True, slots=True)
class Round:
    """Federated metrics after a round."""

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a simulated session left."""

    path: Path
    sha256: str
    rounds: tuple[Round, ...]


def settings(
    session: Path | None, changes: Mapping[str, Any], hyperparameters: Sequence[str], *, demo: bool
) -> PlanSettings:
    """The session file's settings, changed by what the command line says.

    Raises:
        SettingsError: a hyperparameter is not NAME=JSON.
    """
    found = load_session(session).settings if session else PlanSettings()
    own = dict(found.hyperparameters)
    if demo and not session:
        table = demo_data.load("digits")
        own = demo_data.hyperparameters(table, table.rows)
    for text in hyperparameters:
        name, equals, value = text.partition("=")
        try:
            own[name] = json.loads(value)
        except ValueError as error:
            raise SettingsError(f"--set takes NAME=JSON, for example epochs=5, not {text!r}") from error
        if not equals or not name:
            raise SettingsError(f"--set takes NAME=JSON, for example epochs=5, not {text!r}")
    stated = {name: value for name, value in changes.items() if value is not None}
    return replace(found, hyperparameters=own, **stated)


def run(
    algorithm: Path, data: Sequence[Path], chosen: PlanSettings, into: Path, progress: Callable[[str], None]
) -> Rehearsal:
    """Simulate; the model and its card are in ``into`` afterwards."""
    if chosen.continue_from:
        progress(
            f"{chosen.continue_from} is on the network: this rehearsal begins with the algorithm's own first model"
        )
        chosen = replace(chosen, continue_from="")
    prepared = prepare_algorithm(algorithm, chosen)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nevermined-fl-") as name:
        folder = Path(name)
        files = list(data) or _demo_files(folder / "data", chosen.seed)
        datasets = {f"participant-{number}": file for number, file in enumerate(files, 1)}
        plan = chosen.plan(prepared, tuple(datasets))
        work = folder / "session"
        try:
            result = simulate(
                plan,
                algorithm,
                datasets,
                work,
                initial=prepared.initial or None,
                on_event=lambda event: _tell(event, progress),
            )
        except (TrainerError, SessionFailed):
            # It is the user's own machine and code: here the traceback may be seen.
            _show_output(work, progress)
            raise
        for output in ("model.safetensors", "card.json"):
            shutil.copyfile(result.outputs / output, into / output)
    rounds = tuple(Round(each.number, dict(each.metrics)) for each in result.history)
    return Rehearsal((into / "model.safetensors").resolve(), result.digest, rounds)


def _demo_files(folder: Path, seed: int) -> list[Path]:
    table = demo_data.load("digits")
    parts = demo_data.split(table, providers=_DEMO_PROVIDERS, seed=seed).parts
    return [
        demo_data.write_csv(folder / str(number) / "digits.csv", table.columns, rows)
        for number, rows in enumerate(parts, 1)
    ]


def _tell(event: Mapping[str, Any], progress: Callable[[str], None]) -> None:
    if event["event"] in _SHOWN:
        rest = {key: value for key, value in event.items() if key not in {"time", "session", "event", "n"}}
        progress(" ".join([str(event["event"]), *(f"{key}={value}" for key, value in rest.items())]))


def _show_output(work: Path, progress: Callable[[str], None]) -> None:
    for log in sorted(work.glob("participants/*/raw.log")):
        if text := log.read_text(errors="replace").strip():
            progress(f"output of {log.parent.name}:")
            progress("\n".join(text.splitlines()[-_OUTPUT_LINES:]))
            return
