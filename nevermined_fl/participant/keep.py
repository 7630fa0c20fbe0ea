"""What is kept: finished updates, and what the next one builds on.

An update is finished at the moment in which ``kept.json`` names it: a process that is killed before has done nothing,
one that is killed after will never train it again. The newest is kept, and the newest of a round before it: a
coordinator that lost a model asks one round back. So is the one that the newest builds on: error feedback and control
variates go on from what counted, whatever was begun, refused or killed in between.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from nevermined_fl.digests import digest_file
from nevermined_fl.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Keep", "Kept"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished update: what it answers, and what is reported with it.

    ``update`` is the digest of the file that travels, ``residual`` of what it left out for precision's sake, ``control``
    of SCAFFOLD's control variate after it; empty where the plan has no such thing. ``refused`` is the coordinator's last
    word on it, as far as it is known.
    """

    round: int
    model: str
    seed: int
    update: str
    examples: int
    metrics: dict[str, float]
    residual: str = ""
    control: str = ""
    refused: bool = False

    def is_basis(self) -> bool:
        """Whether later updates could build on it."""
        return bool(self.residual or self.control)


class Keep:
    """One folder with the updates that are kept and ``kept.json``, which says which they are."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._whole: set[Path] = set()
        self._all = self._load()
        self._tidy()

    def find(self, round_number: int, model: str, seed: int) -> Kept | None:
        """The finished update for that round, model and seed, whole."""
        for kept in self._all:
            asked = (kept.round, kept.model, kept.seed) == (round_number, model, seed)
            if asked and self._is_whole(self.path(kept.round, kept.seed, "update"), kept.update):
                return kept
        return None

    def earlier(self, round_number: int) -> tuple[Kept, ...]:
        """Updates of rounds before that one on which its update could build, newest first; none that was refused."""
        return tuple(kept for kept in self._all if kept.round < round_number and kept.is_basis() and not kept.refused)

    def left(self, kept: Kept | None, kind: str) -> Path | None:
        """The ``residual`` or ``control`` that an update left behind, whole; None when there is none."""
        digest = getattr(kept, kind, "")
        if kept is None or not digest:
            return None
        path = self.path(kept.round, kept.seed, kind)
        if self._is_whole(path, digest):
            return path
        logger.warning("the %s of round %d is damaged; training goes on without it", kind, kept.round)
        return None

    def path(self, round_number: int, seed: int, kind: str) -> Path:
        """Where the ``update``, ``residual`` or ``control`` of that round and seed is, or goes."""
        return self._folder / f"{round_number}-{seed}.{kind}"

    def add(self, kept: Kept, basis: Kept | None = None) -> None:
        """From now on this is the newest. The one of a round before it stays, and the one that it builds on."""
        older = next((one for one in self._all if one.round < kept.round), None)
        self._whole.update(self._files(kept))
        self._write((kept, *(one for one in self._all if one in (older, basis))))

    def note(self, kept: Kept, *, refused: bool) -> None:
        """What the coordinator said of it. When that is news, nothing that came after it builds on the right one."""
        if kept.is_basis() and kept.refused != refused:
            noted = replace(kept, refused=refused)
            self._write(tuple(noted if one == kept else one for one in self._all if one.round <= kept.round))

    def _write(self, kept: tuple[Kept, ...]) -> None:
        self._all = kept
        write_json(self._folder / "kept.json", [asdict(one) for one in kept])
        self._tidy()

    def _load(self) -> tuple[Kept, ...]:
        try:
            return tuple(Kept(**row) for row in json.loads((self._folder / "kept.json").read_text()))
        except (OSError, ValueError, TypeError):
            return ()

    def _files(self, kept: Kept) -> set[Path]:
        kinds = ("update", *(kind for kind in ("residual", "control") if getattr(kept, kind)))
        return {self.path(kept.round, kept.seed, kind) for kind in kinds}

    def _is_whole(self, path: Path, digest: str) -> bool:
        """What this process wrote is; of what it found, the digest says."""
        if path not in self._whole:
            if not path.exists() or digest_file(path, digest) != digest:
                return False
            self._whole.add(path)
        return True

    def _tidy(self) -> None:
        named = {path for kept in self._all for path in self._files(kept)}
        self._whole &= named
        for path in self._folder.iterdir():
            if path not in named and path.name != "kept.json":
                path.unlink()
