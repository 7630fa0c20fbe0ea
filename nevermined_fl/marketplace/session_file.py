"""What does a session.toml say? Everything that `nevermined-fl run` needs, declared in one file.

Paths are relative to the file. What is not known is refused, so that a misspelt setting is never silently ignored; and
every parameter of the plan is judged when the file is read, before anything is made, published or bought.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.errors import InvalidRequest, SettingsError
from nevermined_fl.marketplace.publishing import Algorithm, PlanSettings
from nevermined_fl.session.parameters import PARAMETERS
from nevermined_fl.session.plan import EarlyStop, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SessionFile", "load_session"]

_DID = re.compile(r"did:nv:[0-9a-f]{64}")
_DIGEST = "sha256:" + "0" * 64
_STAND_IN = Algorithm("algorithm.py", b"?", b"?", (TensorSchema("w", "F32", (1,)),))
_PLAN = {field.name: field for field in fields(PlanSettings)}
_TABLES = {
    "session": {"name", "datasets", "compute", *_PLAN},
    "algorithm": {"file", "name", "gateway"},
    "buyer": {"network", "key", "password_file", "name"},
    "result": {"into"},
}


@dataclass(frozen=True, slots=True)
class SessionFile:
    """One session, declared.

    ``gateway`` is where the algorithm is uploaded to; empty means the first dataset's. ``receipt`` is the file that
    remembers what is done. ``network``, ``key`` and ``password_file`` are None where the command line or the
    environment says it.
    """

    datasets: tuple[str, ...]
    compute: str
    algorithm: Path
    receipt: Path
    settings: PlanSettings = field(default_factory=PlanSettings)
    name: str = "federated session"
    algorithm_name: str = ""
    gateway: str = ""
    into: Path = Path("models")
    network: Path | None = None
    key: Path | None = None
    password_file: Path | None = None
    buyer: str = ""


def load_session(path: Path | str, *, continue_from: str = "") -> SessionFile:
    """Read a session.toml; ``continue_from`` takes the place of what it says about that.

    Raises:
        SettingsError: no such file, not TOML, or a setting that is unknown, missing or of the wrong type.
    """
    file = Path(path)
    try:
        body = tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}", hint="examples/session.toml is one") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error
    if continue_from and isinstance(body.get("session"), dict):
        body["session"]["continue_from"] = continue_from
    return _Reader(file, body).session()


class _Reader:
    """Reads the tables of one file, and says which setting is wrong."""

    def __init__(self, file: Path, body: Mapping[str, Any]) -> None:
        self.file = file
        self.body = body
        self._check_names(body, set(_TABLES), "table")
        for table, known in _TABLES.items():
            if not isinstance(body.get(table, {}), dict):
                raise SettingsError(f"{file}: [{table}] should be a table")
            self._check_names(body.get(table, {}), known, f"[{table}] setting")

    def session(self) -> SessionFile:
        return SessionFile(
            datasets=self._datasets(),
            compute=self._did("compute", self._text("session", "compute", required=True)),
            algorithm=self._path("algorithm", "file", required=True),
            receipt=self.file.with_suffix(".receipt.json").resolve(),
            settings=self._plan(),
            name=self._text("session", "name") or self.file.stem,
            algorithm_name=self._text("algorithm", "name"),
            gateway=self._text("algorithm", "gateway").rstrip("/"),
            into=self._path("result", "into") if self._get("result", "into") else self.file.parent / "models",
            network=self._optional_path("buyer", "network"),
            key=self._optional_path("buyer", "key"),
            password_file=self._optional_path("buyer", "password_file"),
            buyer=self._text("buyer", "name"),
        )

    def _plan(self) -> PlanSettings:
        found = {name: value for name, value in self.body.get("session", {}).items() if name in _PLAN}
        for name in ("strategy_options", "hyperparameters", "early_stop"):
            if not isinstance(found.get(name, {}), dict):
                raise SettingsError(f"{self.file}: [session] {name} should be a table")
        if found.get("continue_from", "") != "":
            self._did("continue_from", found["continue_from"])
        if "metrics" in found:
            found["metrics"] = self._metrics(found["metrics"])
        if "early_stop" in found:
            found["early_stop"] = self._early_stop(found["early_stop"])
        settings = PlanSettings(**found)
        self._check(settings)
        return settings

    def _check(self, settings: PlanSettings) -> None:
        """Let the plan judge bounds and types, with a stand-in for what the algorithm will say."""
        try:
            settings.plan(_STAND_IN, self._datasets(), earlier=_DIGEST if settings.continue_from else "")
        except InvalidRequest as error:
            raise SettingsError(f"{self.file}: [session] {_renamed(error.message)}", hint=error.hint) from error

    def _early_stop(self, row: Mapping[str, Any]) -> EarlyStop:
        try:
            return EarlyStop(**row)
        except TypeError as error:
            known = ", ".join(each.name for each in fields(EarlyStop))
            raise SettingsError(f"{self.file}: [session.early_stop] has {known}; metric is needed") from error

    def _metrics(self, rows: Any) -> tuple[Metric, ...]:
        try:
            return tuple(Metric(**row) for row in rows)
        except TypeError as error:
            raise SettingsError(f"{self.file}: [[session.metrics]] has name, low, high and digits") from error

    def _datasets(self) -> tuple[str, ...]:
        found = self._get("session", "datasets")
        if not isinstance(found, list) or not found or not all(isinstance(did, str) for did in found):
            raise SettingsError(f"{self.file}: [session] datasets should be a list of DIDs")
        return tuple(self._did("datasets", did) for did in found)

    def _did(self, name: str, value: object) -> str:
        if not isinstance(value, str) or not _DID.fullmatch(value):
            raise SettingsError(
                f"{self.file}: [session] {name} should be did:nv: and 64 hex digits, not {value!r:.100}"
            )
        return value

    def _text(self, table: str, name: str, *, required: bool = False) -> str:
        found = self._get(table, name)
        if found is None and not required:
            return ""
        if not isinstance(found, str) or not found:
            raise SettingsError(f"{self.file}: [{table}] {name} should be a text")
        return found

    def _path(self, table: str, name: str, *, required: bool = False) -> Path:
        return (self.file.parent / self._text(table, name, required=required)).resolve()

    def _optional_path(self, table: str, name: str) -> Path | None:
        return self._path(table, name) if self._get(table, name) is not None else None

    def _get(self, table: str, name: str) -> Any:
        return self.body.get(table, {}).get(name)

    def _check_names(self, found: Mapping[str, Any], known: set[str], what: str) -> None:
        if unknown := sorted(set(found) - known):
            raise SettingsError(f"{self.file}: unknown {what} {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _renamed(message: str) -> str:
    """A refusal of the plan's in the words of this file: ``over_selection`` is ``overSelection`` in a DDO."""
    name = re.match(r"[A-Za-z]+", message)
    ours = PARAMETERS.get(name[0], (name[0],))[0] if name else ""
    ours = {"initial_asset": "continue_from", "members": "datasets"}.get(ours, ours)
    return ours + message[name.end() :] if name else message
