"""``python -m benchmarks [CASE ...]``: one JSON line per measurement. Without a case all of them run; docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure, network
from benchmarks.cases import FOLDING_PARAMS, QUICK, ROUNDS, SCALING
from benchmarks.folding import measure_folding
from benchmarks.rounds import measure_rounds
from benchmarks.work import Work


def main() -> int:
    chosen = _arguments()
    if not network.enter_private_network():
        print("no private network here: wire_ratio counts everything on this machine's loopback", file=sys.stderr)
    emit({"bench": "machine"} | measure.machine())
    cases = QUICK if chosen.quick else {name: ROUNDS[name] for name in chosen.cases if name in ROUNDS}
    for name, case in cases.items():
        line = measure_rounds(case.work, scratch=chosen.scratch, raw=case.raw)
        emit({"bench": "round", "case": name} | line | missed(line, case.most))
    if "scaling" in chosen.cases and not chosen.quick:
        measure_scaling(chosen.scratch)
    if "folding" in chosen.cases:
        sizes, clients = ((100_000,), 5) if chosen.quick else (FOLDING_PARAMS, 10)
        for line in measure_folding(sizes, clients, chosen.scratch):
            emit({"bench": "folding"} | line)
    return 0


def measure_scaling(scratch: Path | None) -> None:
    """Does a participant cost more when there are many?"""
    for clients in SCALING:
        line = measure_rounds(Work(10_000, clients, rounds=10, processes=4), scratch=scratch)
        per = {"round_ms_per_client": round(1e3 * line["round_s"] / clients, 3)}
        per |= {"server_cpu_ms_per_client": round(1e3 * line["server_cpu_s"] / clients, 3)}
        emit({"bench": "scaling"} | line | per)


def missed(line: dict[str, Any], most: dict[str, float]) -> dict[str, Any]:
    """Which limits are exceeded."""
    return {"missed": {key: limit for key, limit in most.items() if line[key] > limit}} if most else {}


def emit(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*ROUNDS, "scaling", "folding"]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="small sessions, in seconds: does it run at all?")
    parser.add_argument("--scratch", type=Path, help="folder for models, 15 GB for the largest case")
    chosen = parser.parse_args()
    if unknown := set(chosen.cases) - set(names):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen.cases = chosen.cases or names
    return chosen


if __name__ == "__main__":
    sys.exit(main())
