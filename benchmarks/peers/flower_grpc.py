"""Flower's legacy gRPC in Flower's environment: ``serve`` or ``client``, then a JSON object with what to do.

The server notes when each round is over; clients add a constant of their own to every weight.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
from flwr.compat.client.app import start_client
from flwr.compat.client.numpy_client import NumPyClient
from flwr.compat.common.parameter import ndarrays_to_parameters
from flwr.compat.server.app import start_server
from flwr.server import ServerConfig
from flwr.server.strategy import FedAvg

LIMIT = 2**30
ATTEMPTS = 100


class AddConstant(NumPyClient):
    def __init__(self, number):
        self.constant = np.float32(1e-3 * (1 + number))

    def fit(self, weights, config):
        return [array + self.constant for array in weights], 10, {}


class NotingFedAvg(FedAvg):
    def __init__(self, job):
        first = np.random.default_rng(0).random(job["params"], np.float32)
        everybody = {"min_fit_clients": job["clients"], "min_available_clients": job["clients"]}
        super().__init__(fraction_evaluate=0.0, initial_parameters=ndarrays_to_parameters([first]), **everybody)
        self.job = job

    def aggregate_fit(self, server_round, results, failures):
        aggregated = super().aggregate_fit(server_round, results, failures)
        if len(results) != self.job["clients"]:
            raise RuntimeError(f"{len(results)} of {self.job['clients']} answered: {failures}")
        note_round(self.job["events"], server_round)
        return aggregated


def note_round(path, number):
    with Path(path).open("a") as file:
        file.write(json.dumps({"event": "round_committed", "round": number, "time": time.time()}) + "\n")


def serve(job, strategy):
    start_server(
        server_address=job["address"],
        config=ServerConfig(num_rounds=job["rounds"]),
        strategy=strategy,
        grpc_max_message_length=LIMIT,
    )


def connect(job, client):
    """Flower's client gives up at once while nobody listens."""
    for _ in range(ATTEMPTS):
        try:
            return start_client(
                server_address=job["address"], client=client.to_client(), insecure=True, grpc_max_message_length=LIMIT
            )
        except Exception:  # noqa: BLE001  gRPC's own kinds
            time.sleep(0.2)
    raise SystemExit("no server")


if __name__ == "__main__":
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    logging.getLogger("flwr").setLevel(logging.ERROR)
    work = json.loads(sys.argv[2])
    if sys.argv[1] == "serve":
        serve(work, NotingFedAvg(work))
    else:
        connect(work, AddConstant(work["number"]))
