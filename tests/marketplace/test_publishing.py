"""What a data scientist publishes before buying."""

from dataclasses import replace
from pathlib import Path

import pytest
from buyer_world import BUYER, a_buyer, serving
from permission_world import CLOUD, HOSPITAL, STRANGER, open_market

from nevermined_fl import assets
from nevermined_fl.errors import InvalidRequest, SettingsError, TrainerError
from nevermined_fl.marketplace.publishing import PlanSettings, prepare_algorithm
from nevermined_fl.session.plan import Plan

ALGORITHM = """
import numpy as np
from nevermined_fl import Trainer

class Tiny(Trainer):
    def initialize(self, seed):
        return {"w": np.full(2, seed + self.hyperparameters["bias"], np.float32)}
"""
SETTINGS = PlanSettings(rounds=2, seed=3, hyperparameters={"bias": 0.5}, selection_timeout=30, round_timeout=60)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(ALGORITHM)
    return path


def test_the_first_model_follows_from_seed_and_hyperparameters(file):
    prepared = prepare_algorithm(file, SETTINGS)
    assert prepared.source == ALGORITHM.encode()
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in prepared.schema] == [("w", "F32", (2,))]
    assert prepared.initial.endswith(b"\x00\x00\x60\x40" * 2)  # 3.5 twice
    assert prepared == prepare_algorithm(file, SETTINGS)


def test_an_algorithm_that_cannot_begin_is_refused_before_anything_is_published(file, tmp_path):
    with pytest.raises(TrainerError, match="KeyError"):
        prepare_algorithm(file, PlanSettings())
    with pytest.raises(SettingsError, match="cannot be read"):
        prepare_algorithm(tmp_path / "absent.py", SETTINGS)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(SettingsError, match="has 0 bytes"):
        prepare_algorithm(tmp_path / "empty.py", SETTINGS)


def test_algorithm_session_and_workflow_are_published_and_downloads_granted(file, tmp_path):
    world = open_market()
    with serving(tmp_path, world) as (_, url):
        world.gateway_url = url
        compute = world.publish_compute()
        buyer, _ = a_buyer(world)
        algorithm = buyer.publish_algorithm(file, gateway=url, settings=SETTINGS)
        datasets = (world.dataset, world.other_dataset)
        session = buyer.publish_session(algorithm, datasets=datasets, compute=compute, settings=SETTINGS)
        workflow = buyer.publish_workflow(session, algorithm=algorithm.did)
    assert (tmp_path / "content" / algorithm.digest()[7:]).read_bytes() == ALGORITHM.encode()
    assert (tmp_path / "content" / algorithm.initial_digest()[7:]).read_bytes() == algorithm.initial
    spec = assets.session_spec(world.metadata.resolve(session))
    plan = Plan.from_parameters(spec.parameters, spec.datasets)
    assert (plan.rounds, plan.min_participants, plan.initial_model) == (2, 2, algorithm.initial_digest())
    ddo = world.metadata.resolve(workflow)
    assert (assets.workflow_inputs(ddo), assets.session_of(ddo)) == (datasets, session)
    assert world.chain.may_download(algorithm.did, HOSPITAL.address)
    assert world.chain.may_download(algorithm.did, CLOUD.address)
    assert not world.chain.may_download(algorithm.did, STRANGER.address)
    assert world.chain.registration(session).owner == BUYER.address


def test_a_plan_out_of_bounds_names_the_parameter(file):
    prepared = prepare_algorithm(file, SETTINGS)
    with pytest.raises(InvalidRequest, match="rounds"):
        PlanSettings(rounds=0, hyperparameters={"bias": 1}).plan(prepared, ("a", "b"))
    with pytest.raises(InvalidRequest, match="minParticipants"):
        PlanSettings(min_participants=3, hyperparameters={"bias": 1}).plan(prepared, ("a", "b"))


def test_a_session_that_a_participant_begins_ships_no_first_model(file, tmp_path):
    world, settings = open_market(), replace(SETTINGS, initial_model="participant")
    with serving(tmp_path, world) as (_, url):
        world.gateway_url = url
        compute = world.publish_compute()
        buyer, _ = a_buyer(world)
        algorithm = buyer.publish_algorithm(file, gateway=url, settings=settings)
        datasets = (world.dataset, world.other_dataset)
        session = buyer.publish_session(algorithm, datasets=datasets, compute=compute, settings=settings)
    assert [path.name for path in (tmp_path / "content").iterdir()] == [algorithm.digest()[7:]]
    assert assets.algorithm_files(world.metadata.resolve(algorithm.did)) == (algorithm.files()[0], None)
    assert buyer.check_plan(algorithm, datasets=datasets, compute=compute, settings=settings).schema == algorithm.schema
    spec = assets.session_spec(world.metadata.resolve(session))
    assert (spec.parameters["initialModel"], spec.parameters["initialAsset"]) == ("participant", "")


def test_the_shipped_examples_are_algorithms():
    root = Path(__file__).parents[2]
    known = {"features": 4, "classes": 3, "offset": 0, "scale": 1, "learning_rate": 1.0, "epochs": 1, "batch": 8}
    for path in ("examples/tabular.py", "examples/quickstart.py", "nevermined_fl/devnet/algorithms/softmax.py"):
        assert prepare_algorithm(root / path, PlanSettings(hyperparameters=known)).schema
