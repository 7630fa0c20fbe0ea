"""NVFlare in its own environment: a job of FedAvg over its proof-of-concept processes; the argument is a JSON object."""

import json
import sys

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe.poc_env import PocEnv


def main(job):
    np.save(job["initial"], np.random.default_rng(0).random(job["params"], np.float32))
    environment = PocEnv(num_clients=job["clients"])
    recipe = NumpyFedAvgRecipe(
        name="bench",
        initial_ckpt=job["initial"],
        min_clients=job["clients"],
        num_rounds=job["rounds"],
        train_script=job["client"],
    )
    try:
        recipe.execute(environment).get_result()
    finally:
        environment.stop(clean_up=False)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
