"""Models: the file of a round's model, fetched whole, or made of the model before it and the change between them.

A file bears the digest that was asked for. Only the plan's initial model differs from it: what travels beside the
weights starts as zeros, and is added here. A model with numbers that are not finite is refused: trained on, it would make
a failure of the buyer's algorithm out of the coordinator's. Only those that come whole are read for it: what a change of
finite numbers makes of a finite model is finite (``codecs.delta``, rule 2).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, NotFound, RemoteProtocolError
from nevermined_fl.spool import check_finite, check_header

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nevermined_fl.codecs.schema import TensorSchema
    from nevermined_fl.ports import CoordinatorLink
    from nevermined_fl.session import Plan

__all__ = ["Models"]

logger = logging.getLogger(__name__)


class Models:
    """One folder with the newest model."""

    def __init__(self, folder: Path, plan: Plan, link: CoordinatorLink) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._plan = plan
        self._link = link

    async def get(self, digest: str) -> Path:
        """The model of that digest, with all that travels beside the weights; older ones go.

        Raises:
            RemoteProtocolError: it has not the plan's schema, or a number that is not finite.
        """
        path = self._path(digest)
        if not path.exists() and not await self._change(digest, path):
            await self._fetch(digest, path)
        self._tidy(path)
        return path

    async def _change(self, digest: str, path: Path) -> bool:
        """Make it of the model that is here; False when that cannot be."""
        held = next(iter(self._folder.glob("*.safetensors")), None)
        if self._plan.precision == "f32" or held is None:
            return False
        change, made = path.with_suffix(".change"), path.with_suffix(".made")
        try:
            await self._link.fetch_delta(f"sha256:{held.stem}", digest, change)
            schema = self._plan.carried()
            found = await asyncio.to_thread(precision.apply_change, held, change, made, schema, self._plan.precision)
            if found != digest:
                raise RemoteProtocolError("the change makes another model than its name says", code="digest")
            made.replace(path)
        except NotFound:
            return False
        except RemoteProtocolError as error:
            logger.warning("the model is fetched whole: %s", error)
            return False
        finally:
            change.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
        return True

    async def _fetch(self, digest: str, path: Path) -> None:
        whole = path.with_suffix(".whole")
        self._tidy(whole, whole.with_name(f"{whole.name}.part"))  # a download goes on where it stopped
        await self._link.fetch_model(digest, whole)
        await asyncio.to_thread(self._take, whole, path)

    def _take(self, whole: Path, path: Path) -> None:
        """Take in what was downloaded, if it is a model of the plan."""
        carried, schema = self._plan.carried(), self._plan.schema
        is_bare = whole.stat().st_size == safetensors.file_size(schema)  # nothing beside the weights: the first model
        try:
            with whole.open("rb") as file:
                check_header(file.fileno(), schema if is_bare else carried)
            if whole.stat().st_size not in (safetensors.file_size(schema), safetensors.file_size(carried)):
                raise RemoteProtocolError("the model has not the plan's size", code="schema")
            _refuse_not_finite(whole, schema if is_bare else carried)
            if is_bare and carried != schema:
                precision.extend(whole, path, schema, carried)
            else:
                whole.replace(path)
        finally:
            whole.unlink(missing_ok=True)

    def _tidy(self, *kept: Path) -> None:
        for path in self._folder.iterdir():
            if path not in kept:
                path.unlink()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')}.safetensors"


def _refuse_not_finite(model: Path, schema: Sequence[TensorSchema]) -> None:
    try:
        with model.open("rb") as file:
            check_finite(file.fileno(), schema)
    except DecodeError as error:
        raise RemoteProtocolError("the model holds a number that is not finite", code="not_finite") from error
