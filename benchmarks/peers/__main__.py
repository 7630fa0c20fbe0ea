"""``python -m benchmarks.peers [--environments FOLDER] [PEER ...]``: Flower and NVFlare beside us, alternating; JSON lines.

Everybody runs in the clear, in a private network, with clients that train nothing, and a round lasts from the end of one
to the end of the next.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import measure, network
from benchmarks.__main__ import emit
from benchmarks.peers import environments, run
from benchmarks.rounds import measure_rounds
from benchmarks.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

_MILLION = 1_000_000
LARGE, SMALL = (10 * _MILLION, 10), (_MILLION // 10, 2)

# Which peer with (parameters, clients), measured rounds, and what the ratio of rounds must be at least.
PAIRS = {
    "flower-superlink": ("peers-flower", run.flower_superlink, {LARGE: (3, 15), SMALL: (4, 15)}),
    "flower-grpc": ("peers-flower", run.flower_grpc, {LARGE: (4, 4.5), SMALL: (50, None)}),
    "nvflare": ("peers-nvflare", run.nvflare, {LARGE: (3, 4.5)}),
}
OUR_ROUNDS = {LARGE: 4, SMALL: 100}


def main() -> int:
    chosen = _arguments()
    pythons = {name: environments.make(chosen.environments, name) for name in environments.PEERS}
    if not network.enter_private_network():
        print("a private network is needed (root, or user namespaces)", file=sys.stderr)
        return 1
    versions = {"flwr": environments.version_of(pythons["peers-flower"], "flwr")}
    versions |= {"nvflare": environments.version_of(pythons["peers-nvflare"], "nvflare")}
    emit({"bench": "machine"} | measure.machine() | versions)
    for name in chosen.peers:
        environment, measured, sizes = PAIRS[name]
        for (params, clients), (rounds, wanted) in sizes.items():
            work = Work(params, clients, rounds=rounds)
            ours = Work(params, clients, rounds=OUR_ROUNDS[params, clients])
            lines: dict[str, list[dict[str, Any]]] = {"ours": [], name: []}
            for turn in range(chosen.passes):
                lines["ours"].append(_one("ours", ours, turn, measure_rounds))
                lines[name].append(_one(name, work, turn, partial(measured, python=pythons[environment])))
            emit(_compare(lines["ours"], lines[name], wanted) | {"peer": name, "params": params, "clients": clients})
    return 0


def _one(system: str, work: Work, turn: int, measured: Callable[[Work], dict[str, Any]]) -> dict[str, Any]:
    line = {"bench": "peer", "system": system, "pass": turn, "params": work.params, "clients": work.clients}
    line |= {"tls": False, "load": measure.load()}
    line |= measured(work) | {"load": line["load"]}
    emit(line)
    return line


def _compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], wanted: float | None) -> dict[str, Any]:
    def ratio(key: str) -> float:
        return round(median(line[key] for line in theirs) / median(line[key] for line in ours), 2)

    keys = {"times_faster": "round_s", "times_memory": "server_rss_mb", "times_cpu": "server_cpu_s"}
    return {"bench": "ratio"} | {name: ratio(key) for name, key in keys.items()} | {"wanted": wanted}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", help=", ".join(PAIRS))
    parser.add_argument("--environments", type=Path, default=Path(".venv"), help="where the peers' environments are")
    parser.add_argument("--passes", type=int, default=2, help="how often ours and theirs take turns")
    chosen = parser.parse_args()
    if unknown := set(chosen.peers) - set(PAIRS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PAIRS)}")
    chosen.peers = chosen.peers or list(PAIRS)
    chosen.environments = chosen.environments.absolute()
    return chosen


if __name__ == "__main__":
    sys.exit(main())
