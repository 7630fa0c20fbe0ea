"""Are our FedAvg's weights Flower's? The same data, seeds and algorithm through both; prints one JSON line.

Ours is the engine of every mode (driver, gate, trainer processes) over the memory transport. Flower's is its own server, strategy and clients
over gRPC, in its own environment. Exits with 1 when a weight differs by more than 1e-6.

Usage: oracle.py --flower-python PATH [--rounds 10] [--dataset digits]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np

import nevermined_fl
from nevermined_fl.codecs import safetensors
from nevermined_fl.devnet import demo_data
from nevermined_fl.session import Plan
from nevermined_fl.simulation import simulate
from nevermined_fl.trainers import initial_model

PACKAGE = Path(nevermined_fl.__file__).parent
ALGORITHM = PACKAGE / "devnet" / "algorithms" / "softmax.py"
TOLERANCE = 1e-6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower-python", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dataset", default="digits")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        job, plan, initial = prepare(work, chosen.dataset, chosen.rounds)
        ours = simulate(plan, ALGORITHM, {d: Path(p) for d, p in job["data"].items()}, work / "ours", initial=initial)
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent)}
        script = str(Path(__file__).with_name("flower_fedavg.py"))
        (work / "job.json").write_text(json.dumps(job))
        subprocess.run(
            [chosen.flower_python, script, str(work / "job.json")],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            timeout=300,
        )
        theirs = np.load(job["final"], allow_pickle=False)
        mine = safetensors.load(ours.model)
        apart = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
        moved = max(float(np.abs(mine[name] - start).max()) for name, start in safetensors.load(initial).items())
    report = {"dataset": chosen.dataset, "rounds": chosen.rounds, "participants": len(job["data"])}
    print(json.dumps(report | {"largest_difference": apart, "largest_weight_change": moved, "tolerance": TOLERANCE}))
    return 0 if apart <= TOLERANCE and moved > 1000 * TOLERANCE else 1


def prepare(work, dataset, rounds):
    table = demo_data.load(dataset)
    parts = demo_data.split(table, providers=3, seed=7)
    hyperparameters = demo_data.hyperparameters(table, parts.test)
    data = {}
    for index, rows in enumerate(parts.parts):
        did = "did:nv:" + sha256(f"oracle {index}".encode()).hexdigest()
        demo_data.write_csv(work / f"data{index}" / "data.csv", table.columns, rows)
        data[did] = str(work / f"data{index}")
    initial, schema = initial_model(ALGORITHM, hyperparameters, 7)
    np.savez(work / "initial.npz", **safetensors.load(initial))
    plan = Plan(
        members=tuple(sorted(data)),
        rounds=rounds,
        min_participants=3,
        initial_model="sha256:" + sha256(initial).hexdigest(),
        schema=schema,
        seed=7,
        hyperparameters=tuple(sorted(hyperparameters.items())),
    )
    job = {
        "algorithm": str(ALGORITHM),
        "hyperparameters": hyperparameters,
        "seed": 7,
        "rounds": rounds,
        "initial": str(work / "initial.npz"),
        "final": str(work / "final.npz"),
        "data": data,
        "address": f"127.0.0.1:{free_port()}",
    }
    return job, plan, initial


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
