"""Flower's legacy gRPC in Flower's environment: ``serve`` or ``client``, then a JSON object with what to do.

The server keeps each round's weights, so that their accuracy is measured afterwards, outside of the clock.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
from flwr.compat.client.numpy_client import NumPyClient
from flwr.compat.common.parameter import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.flower_grpc import connect, note_round, serve
from benchmarks.wan import training


class Digits(NumPyClient):
    def __init__(self, job):
        self.client = job["client"]
        self.x, self.y = training.rows(self.client, job["clients"])

    def fit(self, weights, config):
        return training.train(weights, self.x, self.y, training.seed(config["round"], self.client)), len(self.y), {}


class KeepingFedAvg(FedAvg):
    def __init__(self, job):
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=job["clients"],
            min_available_clients=job["clients"],
            initial_parameters=ndarrays_to_parameters(training.initial_weights()),
            on_fit_config_fn=lambda number: {"round": number},
        )
        self.job = job

    def configure_fit(self, server_round, parameters, client_manager):
        chosen = super().configure_fit(server_round, parameters, client_manager)
        if server_round == 1:
            line = {"event": "round_started", "round": 1, "time": time.time()}
            Path(self.job["events"]).write_text(json.dumps(line) + "\n")
        return chosen

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        note_round(self.job["events"], server_round)
        np.savez(Path(self.job["models"]) / f"{server_round}.npz", *parameters_to_ndarrays(parameters))
        return parameters, metrics


if __name__ == "__main__":
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    logging.getLogger("flwr").setLevel(logging.ERROR)
    work = json.loads(sys.argv[2])
    if sys.argv[1] == "serve":
        serve(work, KeepingFedAvg(work))
    else:
        connect(work, Digits(work))
