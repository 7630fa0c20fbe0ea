"""A small neural network for tables of numbers whose last column is the class: one hidden layer, plain numpy.

    nevermined-fl simulate examples/tabular.py --rounds 10 --set hidden=32 --set learning_rate=0.3

Hyperparameters: features, classes, hidden, learning_rate, epochs, batch, and offset and scale of the features.
"""

import numpy as np

from nevermined_fl import Evaluation, Trainer, Update
from nevermined_fl.trainers import load_table


class Network(Trainer):
    def initialize(self, seed):
        features, classes = self.hyperparameters["features"], self.hyperparameters["classes"]
        hidden = self.hyperparameters.get("hidden", 32)
        chance = np.random.default_rng(seed)
        return {
            "inner/weights": (chance.normal(size=(features, hidden)) * np.sqrt(2 / features)).astype(np.float32),
            "inner/bias": np.zeros(hidden, np.float32),
            "outer/weights": (chance.normal(size=(hidden, classes)) * np.sqrt(1 / hidden)).astype(np.float32),
            "outer/bias": np.zeros(classes, np.float32),
        }

    def fit(self, model, seed):
        rows, labels = self._data()
        own = {name: tensor.astype(float) for name, tensor in model.items()}
        targets = np.eye(len(own["outer/bias"]))[labels]
        chance, batch = np.random.default_rng(seed), self.hyperparameters.get("batch", 32)
        rate, steps = self.hyperparameters.get("learning_rate", 0.3), 0
        for _ in range(self.hyperparameters.get("epochs", 3)):
            order = chance.permutation(len(labels))
            for start in range(0, len(labels), batch):
                chosen = order[start : start + batch]
                # What fedprox and scaffold add; with other strategies the gradients stay as they are.
                gradients = self.corrected(self._gradients(own, rows[chosen], targets[chosen]), own)
                for name, gradient in gradients.items():
                    own[name] -= rate * gradient
                steps += 1
        # The model comes and goes in the types that initialize() gave it.
        trained = {name: tensor.astype(np.float32) for name, tensor in own.items()}
        return Update(trained, examples=len(labels), step=rate * steps)

    def evaluate(self, model):
        rows, labels = self._data()
        chances = self._forward(model, rows)[1]
        loss = -np.mean(np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12)))
        accuracy = np.mean(chances.argmax(axis=1) == labels)
        return Evaluation(examples=len(labels), metrics={"accuracy": float(accuracy), "loss": float(loss)})

    def _forward(self, model, rows):
        inner = np.maximum(rows @ model["inner/weights"] + model["inner/bias"], 0)
        scores = inner @ model["outer/weights"] + model["outer/bias"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return inner, powers / powers.sum(axis=1, keepdims=True)

    def _gradients(self, model, rows, targets):
        inner, chances = self._forward(model, rows)
        outer = (chances - targets) / len(rows)
        back = (outer @ model["outer/weights"].T) * (inner > 0)
        return {
            "inner/weights": rows.T @ back,
            "inner/bias": back.sum(axis=0),
            "outer/weights": inner.T @ outer,
            "outer/bias": outer.sum(axis=0),
        }

    def _data(self):
        _, table = load_table(self.inputs)
        offset = np.asarray(self.hyperparameters.get("offset", 0))
        scale = np.asarray(self.hyperparameters.get("scale", 1))
        return (table[:, :-1] - offset) / scale, table[:, -1].astype(int)
