"""The models and server states of a session on disk: which file is which, is it whole, and when may it go?

A model is named by its digest and a state by its round and digest, so that what is damaged shows. What a committed round
made is kept twice: a damaged file costs nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from nevermined_fl.errors import DecodeError, NotFound, SettingsError
from nevermined_fl.files import sha256_file, size_of, storage
from nevermined_fl.spool import check_finite, check_header

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nevermined_fl.session import Plan

__all__ = ["Store"]

logger = logging.getLogger(__name__)

_AT_ONCE = 1 << 30
"""Bytes that the kernel is asked to copy in one go."""


class Store:
    """Models and changes by digest, states by round, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._models = folder / "models"
        self._states = folder / "states"
        for path in (self._models, self._states):
            path.mkdir(parents=True, exist_ok=True)
            # A killed process left parts; and whether a change is whole is known to nobody: the model itself is fetched.
            for left in (*path.glob("*.part"), *path.glob("*.change")):  # hidden ones too
                left.unlink()

    def adopt(self, initial: Path, plan: Plan) -> None:
        """Take in the plan's initial model, unless it is here and whole.

        Raises:
            SettingsError: it is another file than the plan names, or not a model of the plan's schema.
            StorageFull: there is no room.
        """
        if self.heal(plan.initial_model):
            return
        try:
            if sha256_file(initial) != plan.initial_model:
                raise SettingsError("the initial model is not the one that the plan names")
            with initial.open("rb") as file:
                check_header(file.fileno(), plan.schema)
                check_finite(file.fileno(), plan.schema)
        except (OSError, DecodeError) as error:
            raise SettingsError(f"the initial model cannot be used: {error}") from error
        self.take_in(initial, plan.initial_model)

    def take_in(self, model: Path, digest: str) -> None:
        """Copy a model that was checked."""
        part = self._models / "initial.part"
        with storage("the initial model", size_of(model)):
            try:
                shutil.copyfile(model, part)
                part.replace(self.path(digest))
            finally:
                part.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the model of that digest is, or would be."""
        return self._models / f"{digest.removeprefix('sha256:')}.safetensors"

    def find(self, digest: str) -> Path:
        """The model of that digest. Raises NotFound."""
        if _is_digest(digest) and self.path(digest).exists():
            return self.path(digest)
        raise NotFound("no such model here", check="model")

    def delta(self, base: str, digest: str) -> Path:
        """Where the change of model ``base`` into model ``digest`` is, or would be."""
        return self._models / f"{base.removeprefix('sha256:')[:32]}-{digest.removeprefix('sha256:')[:32]}.change"

    def find_delta(self, base: str, digest: str) -> Path:
        """The change of model ``base`` into model ``digest``. Raises NotFound."""
        if _is_digest(base) and _is_digest(digest) and self.delta(base, digest).exists():
            return self.delta(base, digest)
        raise NotFound("no such change of models here", check="model")

    def extended(self, digest: str) -> Path:
        """Where an initial model is with what the strategy carries beside it."""
        return self.path(digest).with_suffix(".extended")

    def previous(self, digest: str) -> Path:
        """What a round's updates are changes of: that model, with all that the strategy carries."""
        extended = self.extended(digest)
        return extended if extended.exists() else self.path(digest)

    def heal(self, digest: str) -> bool:
        """Whether that model is here and undamaged, if need be from its second copy."""
        return _heal(self.path(digest), digest)

    def heal_state(self, round_number: int) -> bool:
        """Whether the server's state after a round is here and undamaged, if need be from its second copy."""
        found = {path.with_suffix("") for path in self._of_round(round_number)}
        return any(_heal(path, f"sha256:{path.name.partition('-')[2]}") for path in found)

    def new_model(self, round_number: int) -> Path:
        """Where a round's model is written before its digest is known."""
        return self._models / f"round-{round_number}"

    def new_delta(self, round_number: int) -> Path:
        """Where the change that makes it is written."""
        return self._models / f"round-{round_number}.change"

    def new_state(self, round_number: int) -> Path:
        """Where the server's state after a round is written before its digest is known."""
        return self._states / f"round-{round_number}"

    def keep(self, round_number: int, base: str, digest: str) -> None:
        """Name what a round made by its digests; an earlier attempt at that round is forgotten."""
        for old in self._of_round(round_number):
            old.unlink()
        state = self.new_state(round_number)
        if state.exists():
            state.replace(self._states / f"{round_number}-{sha256_file(state).removeprefix('sha256:')}")
        if self.new_delta(round_number).exists():
            self.new_delta(round_number).replace(self.delta(base, digest))
        self.new_model(round_number).replace(self.path(digest))

    def state(self, round_number: int) -> Path:
        """The server's state after a round; where it would be, if there is none."""
        found = (path for path in self._of_round(round_number) if not path.suffix)
        return next(found, self._states / f"{round_number}-none")

    def secure(self, digest: str, round_number: int) -> None:
        """Make a round's model and state survive the loss of power and damage to a file; from any thread."""
        for path in (self.path(digest), self.state(round_number)):
            if not path.exists():
                continue
            if not _second(path).exists():
                with storage("the second copy of a model", size_of(path)):
                    _copy(path, _second(path))
            with storage("the new model"):
                _sync(path.parent)

    def clean(self, rounds: Collection[int], keep: Collection[str]) -> None:
        """Drop what belongs to no model of ``keep`` and no state of ``rounds``; changes stay that lead to what is kept."""
        models = [path for digest in keep for path in (self.path(digest), self.extended(digest))]
        kept = {path.name for model in models for path in (model, _second(model))}
        endings = tuple(f"-{digest.removeprefix('sha256:')[:32]}.change" for digest in keep)
        for path in self._models.iterdir():
            if path.name not in kept and not path.name.endswith(endings) and not path.name.startswith("round-"):
                path.unlink(missing_ok=True)
        beginnings = ("round", *map(str, rounds))
        for path in self._states.iterdir():
            if "-" in path.name and path.name.partition("-")[0] not in beginnings:
                path.unlink(missing_ok=True)

    def drop_copies(self) -> None:
        """The session is over and its model published: one of each is enough, and nobody asks for changes."""
        for folder in (self._models, self._states):
            for path in folder.iterdir():
                if path.suffix in {".second", ".change", ".extended"}:
                    path.unlink()

    def _of_round(self, round_number: int) -> list[Path]:
        """All that is kept of the server's state after a round."""
        return [path for path in self._states.iterdir() if path.name.startswith(f"{round_number}-")]


def _second(path: Path) -> Path:
    return path.with_suffix(".second")


def _heal(path: Path, digest: str) -> bool:
    if path.exists() and sha256_file(path) == digest:
        return True
    second = _second(path)
    if not second.exists() or sha256_file(second) != digest:
        return False
    logger.warning("%s is damaged; its second copy takes its place", path.name)
    with storage("the second copy of a model", size_of(second)):
        _copy(second, path)
    return True


def _copy(source: Path, into: Path) -> None:
    """Whole or not at all, and both on the disk when it is done."""
    part = into.with_name(f"{into.name}.part")
    try:
        with source.open("rb", buffering=0) as old, part.open("wb", buffering=0) as new:
            # Never by reference, as copy_file_range may: damage to the blocks of one would be damage to both.
            while os.sendfile(new.fileno(), old.fileno(), None, _AT_ONCE):
                pass
            os.fsync(old.fileno())
            os.fsync(new.fileno())
        part.replace(into)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _is_digest(digest: str) -> bool:
    value = digest.removeprefix("sha256:")
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
