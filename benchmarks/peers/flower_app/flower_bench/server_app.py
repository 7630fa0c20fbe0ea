"""Flower's server: FedAvg that notes when each round is over, as our coordinator's events do."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class NotingFedAvg(FedAvg):
    def __init__(self, events, clients):
        super().__init__(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        self.events, self.clients = events, clients

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        aggregated = super().aggregate_train(server_round, replies)
        answered = sum(not reply.has_error() for reply in replies)
        if answered != self.clients:
            raise RuntimeError(f"{answered} of {self.clients} answered")
        with Path(self.events).open("a") as file:
            line = {"event": "round_committed", "round": server_round, "time": time.time()}
            file.write(json.dumps(line) + "\n")
        return aggregated


@app.main()
def main(grid: Grid, context: Context) -> None:
    wanted = context.run_config
    first = np.random.default_rng(0).random(int(wanted["params"]), np.float32)
    strategy = NotingFedAvg(str(wanted["events"]), int(wanted["clients"]))
    strategy.start(grid=grid, initial_arrays=ArrayRecord([first]), num_rounds=int(wanted["rounds"]))
