"""The demo's claim, checked with a few lines of numpy: federated beats every provider alone and is close to pooled."""

import numpy as np
import pytest

from nevermined_fl.devnet import demo_data
from nevermined_fl.devnet.algorithms.softmax import Softmax

ROUNDS = 10


def train(folders, known, seed):
    """FedAvg over folders, one member being the case of pooled data."""
    members = [Softmax(inputs=folder, hyperparameters=known) for folder in folders]
    model = members[0].initialize(seed)
    for number in range(ROUNDS):
        updates = [member.fit(model, 1000 * seed + 10 * number + n) for n, member in enumerate(members)]
        total = sum(update.examples for update in updates)
        model = {
            name: (sum(u.examples * u.tensors[name].astype(float) for u in updates) / total).astype(np.float32)
            for name in model
        }
    return model


@pytest.mark.parametrize(("providers", "seed"), [(3, 0), (3, 1), (5, 2)])
def test_digits_federated_beats_every_provider_alone_and_comes_close_to_pooled(tmp_path, providers, seed):
    table = demo_data.load("digits")
    split = demo_data.split(table, providers=providers, seed=seed)
    known = demo_data.hyperparameters(table, split.test)
    folders = [tmp_path / str(n) for n in range(providers)]
    for folder, rows in zip(folders, split.parts, strict=True):
        demo_data.write_csv(folder / "part.csv", table.columns, rows)
    demo_data.write_csv(tmp_path / "pooled" / "part.csv", table.columns, split.pooled())
    demo_data.write_csv(tmp_path / "test" / "part.csv", table.columns, split.test)
    judge = Softmax(inputs=tmp_path / "test", hyperparameters=known)

    def accuracy(*parts):
        return judge.evaluate(train(parts, known, seed)).metrics["accuracy"]

    federated, pooled, alone = accuracy(*folders), accuracy(tmp_path / "pooled"), [accuracy(f) for f in folders]
    assert federated > max(alone)
    assert federated > pooled - 0.02
    assert pooled > 0.93
