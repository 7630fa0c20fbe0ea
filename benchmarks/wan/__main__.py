"""``python -m benchmarks.wan``: digits to a target accuracy over a slow and distant link, ours and Flower's in turn; JSON lines.

Ours sends int8 changes over TLS, Flower's legacy gRPC whole weights in the clear. Both train the same in the same order;
accuracy is measured afterwards on digits that nobody trained on. The clock starts with the first round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import jobs, measure, network
from benchmarks.__main__ import emit
from benchmarks.market import AdmissionServer, Market
from benchmarks.peers import environments
from benchmarks.rounds import last_words, running, wait_listening
from benchmarks.wan import training
from benchmarks.wan.link import NEAR, slow_link
from benchmarks.wan.participant import dump_weights, load_weights
from benchmarks.wan.progress import Progress
from benchmarks.watch import POLL, BenchmarkFailed
from benchmarks.work import plan_of
from nevermined_fl.codecs import safetensors
from nevermined_fl.files import sha256_bytes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

_LONGEST = 900.0
_HERE = Path(__file__).parent


def main() -> int:
    chosen = _arguments()
    flower = environments.make(chosen.environments, "peers-flower")
    if not network.enter_private_network() or os.geteuid():
        print("root is needed for two network namespaces and a token bucket between them", file=sys.stderr)
        return 1
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the clients share the cores
    emit({"bench": "machine"} | measure.machine() | {"flwr": environments.version_of(flower, "flwr")})
    lines: dict[str, list[dict[str, Any]]] = {"ours": [], "flower-grpc": []}
    with slow_link(chosen.rate) as far:
        for turn in range(chosen.passes):
            for system, run in {"ours": _ours, "flower-grpc": lambda *rest: _flower(flower, *rest)}.items():
                found = _measure(chosen, far, run)
                lines[system].append(found)
                said = {"rate": chosen.rate, "one_way_delay_s": chosen.delay, "clients": chosen.clients}
                emit({"bench": "wan", "system": system, "pass": turn} | said | found)
    emit({"bench": "ratio", "peer": "flower-grpc over a slow link"} | _compare(lines) | {"wanted": [0.5, 0.333]})
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """One run: its folder, its processes, and how the far side is reached."""

    chosen: argparse.Namespace
    far: list[str]
    folder: Path
    stack: ExitStack
    log: Any

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A process that ends with the run."""
        return self.stack.enter_context(running(command, self.log))

    def serve(self, command: list[str], public_port: int, port: int) -> None:
        """A server and the distance in front of it."""
        wait_listening(self.start(command), port, self.log)
        way = [NEAR, str(public_port), str(port), str(self.chosen.delay)]
        proxy = self.start([sys.executable, "-m", "benchmarks.wan.delay_proxy", *way])
        wait_listening(proxy, public_port, self.log, host=NEAR)


def _measure(chosen: argparse.Namespace, far: list[str], run: Callable[..., Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nevermined-fl-wan-") as name, ExitStack() as stack:
        log = stack.enter_context((Path(name) / "log").open("w+b"))
        events, load = run(_Place(chosen, far, Path(name), stack, log))
        progress = Progress(events)
        until = time.monotonic() + _LONGEST
        while progress.rounds() < chosen.rounds:
            progress.look()
            if time.monotonic() > until:
                raise BenchmarkFailed(last_words(log))
            time.sleep(POLL)
        time.sleep(1.0)  # the last model is being written
        x, y = training.rows(None, chosen.clients)
        reached = [training.accuracy(load(number + 1), x, y) for number in range(chosen.rounds)]
    return progress.until_target(reached)


def _ours(place: _Place) -> tuple[Path, Callable[[int], list[np.ndarray]]]:
    chosen, folder, start = place.chosen, place.folder, place.start
    market = Market(chosen.clients)
    raw = dump_weights(training.initial_weights())
    (folder / "initial").write_bytes(raw)
    parameters = {"rounds": chosen.rounds, "precision": "int8", "checkpointEvery": 1}
    plan = plan_of(market, safetensors.schema_of(safetensors.load(raw)), sha256_bytes(raw), parameters)
    endpoint = jobs.Endpoint(network.free_port(), tls=True, host=NEAR, public_port=network.free_port())
    who = [{"client": number, "clients": chosen.clients} for number in range(chosen.clients)]
    laid = jobs.lay_out(folder, market, plan, endpoint, initial=folder / "initial", jobs=who)
    place.stack.enter_context(AdmissionServer(market, laid.coordinator / "admission.sock"))
    place.serve([sys.executable, "-m", "coordinator_image", str(laid.coordinator)], endpoint.public_port, endpoint.port)
    for participant in laid.participants:
        start([*place.far, sys.executable, "-m", "benchmarks.wan.participant", str(participant)])
    checkpoints = laid.coordinator / "outputs" / "checkpoints"
    return laid.coordinator / "events.jsonl", lambda number: load_weights(checkpoints / f"round-{number}.safetensors")


def _flower(python: Path, place: _Place) -> tuple[Path, Callable[[int], list[np.ndarray]]]:
    chosen, folder = place.chosen, place.folder
    port, public_port = network.free_port(), network.free_port()
    job = {"rounds": chosen.rounds, "clients": chosen.clients, "events": f"{folder}/events", "models": str(folder)}
    script = str(_HERE / "flower_digits.py")
    serve = [str(python), script, "serve", json.dumps(job | {"address": f"127.0.0.1:{port}"})]
    place.serve(serve, public_port, port)
    for number in range(chosen.clients):
        mine = json.dumps(job | {"address": f"{NEAR}:{public_port}", "client": number})
        place.start([*place.far, str(python), script, "client", mine])
    return folder / "events", lambda number: _load_npz(folder / f"{number}.npz")


def _load_npz(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def _compare(lines: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def ratio(key: str) -> float:
        ours, theirs = (median(line[key] for line in lines[system]) for system in ("ours", "flower-grpc"))
        return round(ours / theirs, 3)

    def at(target: str, which: int) -> float:
        ours, theirs = (median(line["targets"][target][which] for line in lines[s]) for s in ("ours", "flower-grpc"))
        return round(ours / theirs, 3)

    everywhere = {target: (at(target, 0), at(target, 1)) for target in lines["ours"][0]["targets"]}
    return {"time_ratio": ratio("target_s"), "bytes_ratio": ratio("target_mb"), "time_and_bytes_by_target": everywhere}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wan", description=__doc__)
    parser.add_argument("--environments", type=Path, default=Path(".venv"), help="where the peers' environments are")
    parser.add_argument("--passes", type=int, default=2, help="how often ours and theirs take turns")
    parser.add_argument("--rate", default="100mbit", help="of the link, in each direction")
    parser.add_argument("--delay", type=float, default=0.04, help="seconds, one way")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    chosen = parser.parse_args()
    chosen.environments = chosen.environments.absolute()
    return chosen


if __name__ == "__main__":
    sys.exit(main())
