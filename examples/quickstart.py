"""A line through everybody's points, in one file: `nevermined-fl devnet up`, then `python examples/quickstart.py`."""

import numpy as np

from nevermined_fl import Evaluation, Trainer, Update
from nevermined_fl.trainers import load_table


class Line(Trainer):
    def initialize(self, seed):
        return {"line": np.zeros(2, np.float32)}

    def fit(self, model, seed):
        x, y = load_table(self.inputs)[1].T
        return Update({"line": np.polyfit(x, y, 1).astype(np.float32)}, examples=len(x))

    def evaluate(self, model):
        x, y = load_table(self.inputs)[1].T
        return Evaluation(examples=len(x), metrics={"loss": float(np.mean((np.polyval(model["line"], x) - y) ** 2))})


if __name__ == "__main__":
    from nevermined_fl import DataScientist, Provider

    home = ".nevermined-fl/devnet"
    compute = Provider(f"{home}/providers/compute").publish_compute(price=5 * 10**18, name="coordinators")
    sellers = [Provider(f"{home}/providers/provider-{number}") for number in (1, 2, 3)]
    for seller, x in zip(sellers, np.arange(60).reshape(3, 20), strict=True):
        np.savetxt(seller.home / "points.csv", np.c_[x, 3 * x + 7 + x % 2], "%g", ",", header="x,y", comments="")
    datasets = [s.publish_dataset(s.home / "points.csv", price=10**18, name=s.settings.name) for s in sellers]
    buyer = DataScientist(f"{home}/data-scientist/key.json", f"{home}/network.json")
    algorithm = buyer.publish_algorithm(__file__, gateway=buyer.gateway_url(datasets[0]))
    session = buyer.publish_session(algorithm, datasets=datasets, compute=compute)
    workflow = buyer.publish_workflow(session, algorithm=algorithm.did)
    for seller in sellers:
        seller.approve(algorithm.digest())
    for did, agreement in buyer.order_all(session).items():
        buyer.start(agreement, workflow=session if did == compute else workflow)
    print(buyer.fetch(buyer.wait(session).model, "models").path)
