"""Are our models Flower's? Prints JSON lines: a whole session with FedAvg, then every aggregator that both have.

The session: the same data, seeds and algorithm through both engines. Ours is that of every mode (driver, gate, trainer
processes) over the memory transport; Flower's is its own server, strategy and clients over gRPC, in its own environment.
The aggregators: the same random updates over a few rounds, ours folded from files as the driver does it.
Exits with 1 when something differs by more than the tolerance of its line.

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
from nevermined_fl.aggregation import create
from nevermined_fl.codecs import safetensors
from nevermined_fl.devnet import demo_data
from nevermined_fl.driver.folding import Given, fold
from nevermined_fl.session import Plan
from nevermined_fl.simulation import simulate
from nevermined_fl.trainers import initial_model

PACKAGE = Path(nevermined_fl.__file__).parent
ALGORITHM = PACKAGE / "devnet" / "algorithms" / "softmax.py"
TOLERANCE = 1e-6

# Flower computes in the model's dtype, we in exact integers and float64, so float64 shows whether the formulas agree.
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
SHAPES = {"w": (64, 33), "b": (33,)}
ROUNDS = 5
EXAMPLES = [120, 7, 3000, 1, 44, 512, 60, 999, 13, 250]
ADAPTIVE = {"eta": 0.1, "tau": 1e-3}
MOMENTS = {"beta_1": 0.9, "beta_2": 0.99}
CASES = [
    # Ours, our options, Flower's class, its arguments, what makes them comparable.
    ("fedavg", {}, "FedAvg", {}, ""),
    ("fedavgm", {"momentum": 0.7, "learning_rate": 0.5}, "FedAvgM", {"server_momentum": 0.7, "server_learning_rate": 0.5}, ""),
    ("fedadam", {}, "FedAdam", ADAPTIVE | MOMENTS, "Flower's without bias correction, second moment from tau**2: as in the paper"),
    ("fedyogi", {}, "FedYogi", ADAPTIVE | MOMENTS, "Flower's with the second moment from tau**2: as in the paper"),
    ("fedadagrad", {}, "FedAdagrad", ADAPTIVE, "Flower's with the second moment from tau**2: as in the paper"),
    ("fedprox", {"mu": 0.1}, "FedProx", {"proximal_mu": 0.1}, ""),
    ("median", {}, "FedMedian", {}, ""),
    ("trimmed_mean", {"trim": 0.2}, "FedTrimmedAvg", {"beta": 0.2}, ""),
    ("krum", {"byzantine": 2}, "Krum", {"num_malicious_clients": 2}, ""),
    (
        "multi_krum",
        {"byzantine": 2, "keep": 4},
        "Krum",
        {"num_malicious_clients": 2, "num_clients_to_keep": 4},
        "equal examples: Flower weighs by them, the paper does not",
    ),
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flower-python", required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dataset", default="digits")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fine = [session(Path(folder) / "session", chosen), *aggregators(Path(folder) / "aggregators", chosen)]
    return 0 if all(fine) else 1


def session(work, chosen):
    work.mkdir()
    job, plan, initial = prepare(work, chosen.dataset, chosen.rounds)
    ours = simulate(plan, ALGORITHM, {d: Path(p) for d, p in job["data"].items()}, work / "ours", initial=initial)
    run_flower(chosen.flower_python, "flower_fedavg.py", job, work)
    theirs = np.load(job["final"], allow_pickle=False)
    mine = safetensors.load(ours.model)
    apart = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
    moved = max(float(np.abs(mine[name] - start).max()) for name, start in safetensors.load(initial).items())
    report = {"dataset": chosen.dataset, "rounds": chosen.rounds, "participants": len(job["data"])}
    print(json.dumps(report | {"largest_difference": apart, "largest_weight_change": moved, "tolerance": TOLERANCE}))
    return apart <= TOLERANCE and moved > 1000 * TOLERANCE


def aggregators(work, chosen):
    work.mkdir()
    chance = np.random.default_rng(11)
    given = {f"initial/{name}": chance.normal(size=shape) for name, shape in SHAPES.items()}
    for number in range(1, ROUNDS + 1):
        for index in range(len(EXAMPLES)):
            for name, shape in SHAPES.items():
                given[f"{number}/{index}/{name}"] = given[f"initial/{name}"] + chance.normal(scale=0.3, size=shape)
    np.savez(work / "updates.npz", **given)
    cases = [case(*row, dtype=dtype) for row in CASES for dtype in TOLERANCES]
    job = {"cases": cases, "names": list(SHAPES)}
    job |= {"updates": str(work / "updates.npz"), "models": str(work / "models.npz")}
    run_flower(chosen.flower_python, "flower_strategies.py", job, work)
    theirs = np.load(job["models"], allow_pickle=False)
    return [compare(each, given, theirs, work) for each in cases]


def case(strategy, options, flower, arguments, note, *, dtype):
    examples = [100] * len(EXAMPLES) if strategy == "multi_krum" else EXAMPLES
    found = {"strategy": strategy, "options": options, "flower": flower, "arguments": arguments, "note": note}
    return found | {"dtype": dtype, "rounds": ROUNDS, "examples": examples}


def compare(case, given, theirs, work):
    apart = moved = 0.0
    start = {name: given[f"initial/{name}"].astype(case["dtype"]) for name in SHAPES}
    for number, model in our_models(case, given, start, work):
        for name in SHAPES:
            other = theirs[f"{case['strategy']}/{case['dtype']}/{number}/{name}"]
            apart = max(apart, float(np.abs(model[name] - other).max()))
            moved = max(moved, float(np.abs(model[name] - start[name]).max()))
    tolerance = TOLERANCES[case["dtype"]]
    report = {key: case[key] for key in ("strategy", "flower", "dtype", "rounds")}
    report |= {"flower_version": str(theirs["version"]), "participants": len(EXAMPLES)}
    report |= {"largest_difference": apart, "largest_weight_change": moved, "tolerance": tolerance}
    print(json.dumps(report | ({"note": case["note"]} if case["note"] else {})))
    return apart <= tolerance and moved > 1000 * tolerance


def our_models(case, given, start, work):
    aggregator, dtype = create(case["strategy"], case["options"]), case["dtype"]
    folder = Path(tempfile.mkdtemp(dir=work))
    (folder / "model0").write_bytes(safetensors.dump(start))
    for number in range(1, case["rounds"] + 1):
        updates = []
        for index, examples in enumerate(case["examples"]):
            updates.append(Given(folder / f"update{index}", examples))
            tensors = {name: given[f"{number}/{index}/{name}"].astype(dtype) for name in SHAPES}
            updates[-1].path.write_bytes(safetensors.dump(tensors))
        fold(
            aggregator,
            safetensors.schema_of(start),
            previous=folder / f"model{number - 1}",
            updates=updates,
            into=folder / f"model{number}",
            state_before=folder / f"state{number - 1}",
            state_after=folder / f"state{number}",
        )
        yield number, safetensors.load((folder / f"model{number}").read_bytes())


def run_flower(python, script, job, work):
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(PACKAGE.parent),
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    (work / "job.json").write_text(json.dumps(job))
    command = [python, str(Path(__file__).with_name(script)), str(work / "job.json")]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=300)


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
