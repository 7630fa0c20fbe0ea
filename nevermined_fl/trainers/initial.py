"""The first model: ``initialize(seed)`` of the buyer's file, run by the buyer in the same kind of child as at a provider."""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import DecodeError, SettingsError, TrainerError
from nevermined_fl.trainers.gate import REFUSED, copy_file
from nevermined_fl.trainers.process import Place, TrainerChild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.session.plan import TensorSchema

__all__ = ["run"]

_MAX_MODEL = 2**34
_TIMEOUT = 300.0


def run(
    file: Path, hyperparameters: Mapping[str, Any], seed: int, inputs: Path | None
) -> tuple[bytes, tuple[TensorSchema, ...]]:
    """See nevermined_fl.trainers.initial_model."""
    if not file.is_file():
        raise SettingsError(f"no algorithm file {file}")
    with tempfile.TemporaryDirectory() as folder:
        place = _place(file.resolve(), Path(folder).resolve(), inputs)
        # A thread of its own: the caller may already be inside an event loop, as notebooks are.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, _initialize(place, hyperparameters, seed)).result()
        return _model(place.scratch / "initial.safetensors", Path(folder) / "copy")


def _place(file: Path, folder: Path, inputs: Path | None) -> Place:
    for name in ("inputs", "scratch"):
        (folder / name).mkdir()
    return Place(file, inputs.resolve() if inputs else folder / "inputs", folder / "scratch")


async def _initialize(place: Place, hyperparameters: Mapping[str, Any], seed: int) -> None:
    child = TrainerChild(place)
    try:
        await child.start(hyperparameters, _TIMEOUT)
        await child.ask({"op": "initialize", "seed": seed, "output": "initial.safetensors"}, _TIMEOUT)
    finally:
        await child.close()


def _model(output: Path, copy: Path) -> tuple[bytes, tuple[TensorSchema, ...]]:
    try:
        copy_file(output, copy, _MAX_MODEL)
        raw = copy.read_bytes()
        return raw, safetensors.schema_of(safetensors.load(raw))
    except DecodeError as error:
        raise TrainerError(f"initialize() gave no model: {error.message}", kind=REFUSED) from error
