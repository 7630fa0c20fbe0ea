"""Flower's own strategies on given updates: the peer's half of the oracle of aggregators. Runs in Flower's own environment.

Usage: flower_strategies.py JOB.json, where JOB names the cases, the updates (.npz) and the file to write the models to.

Where Flower departs from the paper that it names, it is set up to follow the paper:
- FedAdam, FedYogi and FedAdagrad start the second moment at 0, the paper (and we) at tau**2: it is set before round 1.
- FedAdam corrects its bias as Adam does, algorithm 2 of the paper (and we) does not: eta is divided by the correction.
"""

import json
import logging
import sys
from pathlib import Path

import flwr
import numpy as np
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import strategy as strategies

ADAPTIVE = ("FedAdam", "FedYogi", "FedAdagrad")


def build(case, initial):
    rule = getattr(strategies, case["flower"])(initial_parameters=ndarrays_to_parameters(initial), **case["arguments"])
    if case["flower"] in ADAPTIVE:
        rule.v_t = [np.full_like(tensor, rule.tau**2) for tensor in initial]
    return rule


def uncorrected(rule, case, number):
    """Take out of FedAdam's step the correction that it will put in."""
    if case["flower"] == "FedAdam":
        correction = np.sqrt(1 - rule.beta_2 ** (number + 1.0)) / (1 - rule.beta_1 ** (number + 1.0))
        rule.eta = case["arguments"]["eta"] / correction


def models_of(case, names, given):
    dtype = case["dtype"]
    rule = build(case, [given[f"initial/{name}"].astype(dtype) for name in names])
    for number in range(1, case["rounds"] + 1):
        results = []
        for index, examples in enumerate(case["examples"]):
            update = [given[f"{number}/{index}/{name}"].astype(dtype) for name in names]
            results.append((None, FitRes(Status(Code.OK, ""), ndarrays_to_parameters(update), examples, {})))
        uncorrected(rule, case, number)
        parameters, _ = rule.aggregate_fit(number, results, [])
        yield number, parameters_to_ndarrays(parameters)


def main(path):
    logging.getLogger("flwr").setLevel(logging.ERROR)
    job = json.loads(Path(path).read_text())
    given = np.load(job["updates"], allow_pickle=False)
    found = {"version": np.array(flwr.__version__)}
    for case in job["cases"]:
        for number, tensors in models_of(case, job["names"], given):
            for name, tensor in zip(job["names"], tensors, strict=True):
                found[f"{case['strategy']}/{case['dtype']}/{number}/{name}"] = tensor
    np.savez(job["models"], **found)


if __name__ == "__main__":
    main(sys.argv[1])
