"""Flower's FedAvg on our Trainer, data and seeds: the peer's half of the oracle. Runs in Flower's own environment.

Usage: flower_fedavg.py JOB.json, where JOB names the algorithm file, hyperparameters, the plan's seed, the rounds, the initial
weights (.npz), one data folder per participant and the file to write the final weights to.
"""

import importlib.util
import json
import logging
import os
import sys
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from flwr.compat.client.app import start_client
from flwr.compat.client.numpy_client import NumPyClient
from flwr.compat.common.parameter import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.server.app import start_server
from flwr.server import ServerConfig
from flwr.server.strategy import FedAvg

from nevermined_fl import Trainer


def trainer_class(path):
    spec = importlib.util.spec_from_file_location("algorithm", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Trainer) and v is not Trainer)


class Client(NumPyClient):
    def __init__(self, job, participant, inputs):
        kind = trainer_class(job["algorithm"])
        self.trainer = kind(inputs=Path(inputs), hyperparameters=job["hyperparameters"])
        self.job, self.participant = job, participant

    def fit(self, weights, config):
        text = f"{self.job['seed']}:{config['round']}:{self.participant}"
        seed = int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1
        update = self.trainer.fit(dict(zip(self.job["names"], weights, strict=True)), seed)
        return [update.tensors[name] for name in self.job["names"]], update.examples, {}


def run_client(job, participant, inputs):
    start_client(server_address=job["address"], client=Client(job, participant, inputs).to_client(), insecure=True)


def main(path):
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    logging.getLogger("flwr").setLevel(logging.ERROR)
    job = json.loads(Path(path).read_text())
    initial = np.load(job["initial"], allow_pickle=False)
    job["names"] = sorted(initial.files)
    latest = {}

    class Recorder(FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            parameters, metrics = super().aggregate_fit(server_round, results, failures)
            latest["weights"] = parameters_to_ndarrays(parameters)
            return parameters, metrics

    count = len(job["data"])
    strategy = Recorder(
        fraction_evaluate=0.0,
        min_fit_clients=count,
        min_available_clients=count,
        initial_parameters=ndarrays_to_parameters([initial[name] for name in job["names"]]),
        on_fit_config_fn=lambda server_round: {"round": server_round},
    )
    # Spawned, not forked: a gRPC that was imported before a fork may hang.
    spawn = get_context("spawn")
    clients = [spawn.Process(target=run_client, args=(job, name, folder)) for name, folder in job["data"].items()]
    for client in clients:
        client.start()
    try:
        start_server(server_address=job["address"], config=ServerConfig(num_rounds=job["rounds"]), strategy=strategy)
    finally:
        for client in clients:
            client.join(10)
            client.terminate()
    np.savez(job["final"], **dict(zip(job["names"], latest["weights"], strict=True)))


if __name__ == "__main__":
    main(sys.argv[1])
