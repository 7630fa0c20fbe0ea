"""Flower's client: adds a constant of its own to every weight."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    constant = np.float32(1e-3 * (1 + context.node_id % 9973))
    weights = [array + constant for array in message.content["arrays"].to_numpy_ndarrays()]
    answer = RecordDict({"arrays": ArrayRecord(weights), "metrics": MetricRecord({"num-examples": 10})})
    return Message(content=answer, reply_to=message)
