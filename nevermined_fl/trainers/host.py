"""The child process that runs the buyer's file: ``python -m nevermined_fl.trainers.host FILE REQUESTS REPLIES``.

REQUESTS and REPLIES are numbers of inherited file descriptors that carry frames. Whatever this process says is judged
by the gate on the other side: nothing here protects the data, the buyer's code may have changed all of it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.codecs import safetensors
from nevermined_fl.trainers import Evaluation, Trainer, Update, correction, frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.trainers import Tensors

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Answer requests until the participant closes the pipe."""
    file, requests, replies = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    host = _Host(file)
    while (request := frames.read(requests)) is not None:
        frames.write(replies, host.answer(request))
    return 0


class NotOneTrainer(Exception):
    """A file with no Trainer, or more than one: the gate knows this name and says it in its own words."""


class _Host:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._trainer: Trainer | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "open": self._open,
            "initialize": self._initialize,
            "fit": self._fit,
            "evaluate": self._evaluate,
        }

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._operations[request["op"]](request)
        except BaseException as error:  # noqa: BLE001  SystemExit of the buyer's code is its failure, not ours
            traceback.print_exc()  # raw output, for the provider alone
            return {"error": {"kind": type(error).__name__, "line": _line(error, str(self._file))}}
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        kind = _trainer_class(self._file)
        inputs = Path(os.environ["NEVERMINED_INPUTS_PATH"])
        hyperparameters = json.loads(Path(request["hyperparameters"]).read_text())
        self._trainer = kind(inputs=inputs, hyperparameters=hyperparameters)
        return {}

    def _initialize(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._trainer is not None
        _write(Path(request["output"]), self._trainer.initialize(request["seed"]))
        return {}

    def _fit(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._trainer is not None
        model, server = correction.split(_read(request["model"]), tuple(request["extras"]))
        own = _read(request["control"]) if request["control"] else None
        corrected = correction.make(request["strategy"], request["options"], model, server, own)
        self._trainer.correction = corrected
        update = self._trainer.fit(model, request["seed"])
        if not isinstance(update, Update):
            raise TypeError(f"fit should return an Update, not {type(update).__name__}")
        _write(Path(request["output"]), {**update.tensors, **corrected.extras(update)})
        return _counted(update)

    def _evaluate(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._trainer is not None
        model, _ = correction.split(_read(request["model"]), tuple(request["extras"]))
        evaluation = self._trainer.evaluate(model)
        if not isinstance(evaluation, Evaluation):
            raise TypeError(f"evaluate should return an Evaluation, not {type(evaluation).__name__}")
        return _counted(evaluation)


def _read(name: str) -> Tensors:
    """The tensors of a file, as writable views of the one buffer that it is read into."""
    path = Path(name)
    raw = bytearray(path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        while file.readinto(memoryview(raw)[file.tell() :]):
            pass
    header = safetensors.Header.parse(bytes(raw[: 8 + safetensors.header_length(bytes(raw[:8]))]))
    data = memoryview(raw)[header.data_offset :]
    return {e.name: safetensors.as_array(data[e.begin : e.end], e.dtype).reshape(e.shape) for e in header.entries}


def _write(path: Path, tensors: Tensors) -> None:
    """``safetensors.dump`` into a file, tensor by tensor."""
    schema = safetensors.schema_of(tensors)
    with path.open("wb") as file:
        file.write(safetensors.header_bytes(schema))
        for tensor in schema:
            numbers = np.ascontiguousarray(tensors[tensor.name], dtype=safetensors.NUMPY_DTYPES[tensor.dtype])
            file.write(numbers.reshape(-1).view(np.uint8).data)


def _counted(result: Update | Evaluation) -> dict[str, Any]:
    return {"examples": int(result.examples), "metrics": {str(k): float(v) for k, v in result.metrics.items()}}


def _trainer_class(file: Path) -> type[Trainer]:
    spec = importlib.util.spec_from_file_location("algorithm", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["algorithm"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Trainer)]
    own = [kind for kind in found if kind.__module__ == "algorithm"]
    if len(own) != 1:
        raise NotOneTrainer(f"the algorithm file should have one Trainer subclass, it has {len(own)}")
    return own[0]


def _line(error: BaseException, file: str) -> int:
    """Where in the buyer's own file it happened; 0 when nowhere there."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    frames_ = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames_) if frame.filename == file), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
