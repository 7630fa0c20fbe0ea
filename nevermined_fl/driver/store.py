"""The models and server states of a session on disk: which file is which, and when may it go?"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from nevermined_fl.errors import DecodeError, NotFound, SettingsError
from nevermined_fl.files import sha256_file
from nevermined_fl.spool import check_finite, check_header

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.session import Plan

__all__ = ["Store"]


class Store:
    """Models by digest, states by round, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._models = folder / "models"
        self._states = folder / "states"
        for path in (self._models, self._states):
            path.mkdir(parents=True, exist_ok=True)

    def adopt(self, initial: Path, plan: Plan) -> None:
        """Take in the plan's initial model.

        Raises:
            SettingsError: it is another file than the plan names, or not a model of the plan's schema.
        """
        if self.path(plan.initial_model).exists():
            return
        try:
            if sha256_file(initial) != plan.initial_model:
                raise SettingsError("the initial model is not the one that the plan names")
            with initial.open("rb") as file:
                check_header(file.fileno(), plan.schema)
                check_finite(file.fileno(), plan.schema)
        except (OSError, DecodeError) as error:
            raise SettingsError(f"the initial model cannot be used: {error}") from error
        part = self._models / "initial.part"
        shutil.copyfile(initial, part)
        part.replace(self.path(plan.initial_model))

    def path(self, digest: str) -> Path:
        """Where the model of that digest is, or would be."""
        return self._models / f"{digest.removeprefix('sha256:')}.safetensors"

    def find(self, digest: str) -> Path:
        """The model of that digest. Raises NotFound."""
        value = digest.removeprefix("sha256:")
        if len(value) == 64 and set(value) <= set("0123456789abcdef") and self.path(digest).exists():
            return self.path(digest)
        raise NotFound("no such model here", check="model")

    def new_model(self, round_number: int) -> Path:
        """Where a round's model is written before its digest is known."""
        return self._models / f"round-{round_number}"

    def keep(self, round_number: int, digest: str) -> None:
        """Name a round's model by its digest."""
        self.new_model(round_number).replace(self.path(digest))

    def state(self, round_number: int) -> Path:
        """The server's state after a round."""
        return self._states / f"{round_number}.safetensors"

    def clean(self, round_number: int, keep: set[str]) -> None:
        """After a committed round: what is kept is enough, and the state that the next round begins with."""
        kept = {self.path(digest) for digest in keep}
        for path in self._models.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)
        for path in self._states.glob("*.safetensors"):
            if int(path.stem) < round_number:
                path.unlink(missing_ok=True)
