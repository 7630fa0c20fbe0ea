"""Continuing from an earlier model: whose it is, what it looks like, and who will have to download it."""

import hashlib

import pytest
from buyer_world import BUYER, a_buyer
from permission_world import CLOUD, STRANGER, open_market

from nevermined_fl import assets
from nevermined_fl.codecs import safetensors
from nevermined_fl.codecs.schema import TensorSchema
from nevermined_fl.errors import InvalidRequest, PermissionDenied
from nevermined_fl.marketplace.publishing import Algorithm, PlanSettings, publish_session

SCHEMA = (TensorSchema("weights", "F32", (3,)),)  # of permission_world's session
SIZE = safetensors.file_size(SCHEMA)


def algorithm(schema=SCHEMA):
    return Algorithm("algorithm.py", b"code", b"", schema)


def publish_model(world, *, owner=BUYER, maker=CLOUD, size=SIZE):
    """A model that the cloud made of permission_world's session."""
    file = assets.FileEntry("model.safetensors", "application/octet-stream", size, "d4" * 32)
    about = world.about()
    ddo = assets.build_model(
        world.publisher(maker), about, gateway_url=world.gateway_url, session=world.session, files=[file], metrics={}
    )
    did = world.publish(maker, ddo)
    if owner != maker:
        world.chain.transfer_ownership(maker, did, owner.address)
    return did


def plan(world, did, schema=SCHEMA):
    buyer, _ = a_buyer(world)
    datasets = (world.dataset, world.other_dataset)
    settings = PlanSettings(continue_from=did)
    return buyer.check_plan(algorithm(schema), datasets=datasets, compute=world.compute, settings=settings)


def test_the_plan_names_the_asset_and_the_digest_of_its_file():
    world = open_market()
    did = publish_model(world)
    found = plan(world, did)
    assert (found.initial_asset, found.initial_model) == (did, "sha256:" + "d4" * 32)


def test_the_coordinator_s_provider_may_download_it_and_nobody_else():
    world = open_market()
    buyer, _ = a_buyer(world)
    did = publish_model(world)
    assert not world.chain.may_download(did, CLOUD.address)
    session = publish_session(buyer.market, plan(world, did), algorithm(), compute=world.compute, name="two")
    assert world.chain.may_download(did, CLOUD.address)
    assert not world.chain.may_download(did, STRANGER.address)
    assert assets.session_spec(world.metadata.resolve(session)).parameters["initialAsset"] == did


def test_a_model_with_other_tensors_names_the_first_that_differs():
    world = open_market()
    did = publish_model(world)
    with pytest.raises(InvalidRequest, match=r"tensor weights is F32 \[3\] in did:nv:.*, F32 \[4\] in the algorithm"):
        plan(world, did, (TensorSchema("weights", "F32", (4,)),))
    with pytest.raises(InvalidRequest, match=r"tensor bias is missing in did:nv:.*, F32 \[2\] in the algorithm"):
        plan(world, did, (*SCHEMA, TensorSchema("bias", "F32", (2,))))
    with pytest.raises(InvalidRequest, match=f"has {SIZE + 1} bytes; such a model has {SIZE}"):
        plan(world, publish_model(world, size=SIZE + 1))


def test_what_is_no_model_of_the_buyer_s_is_refused():
    world = open_market()
    theirs = publish_model(world, owner=STRANGER)
    with pytest.raises(PermissionDenied, match="may not download") as refused:
        plan(world, theirs)
    assert refused.value.check == "download_allowed"
    with pytest.raises(InvalidRequest, match="is of type algorithm, not a model"):
        plan(world, world.algorithm)
    absent = "did:nv:" + hashlib.sha256(b"nothing").hexdigest()
    with pytest.raises(InvalidRequest, match="is not registered on chain"):
        plan(world, absent)


def test_who_was_granted_a_model_cannot_hand_it_on():
    """The buyer may download it, but the coordinator's provider may not, and only the owner can change that."""
    world = open_market()
    theirs = publish_model(world, owner=STRANGER)
    world.chain.grant_permission(STRANGER, theirs, BUYER.address)
    with pytest.raises(PermissionDenied, match="only its owner can allow it"):
        plan(world, theirs)
    world.chain.grant_permission(STRANGER, theirs, CLOUD.address)
    assert plan(world, theirs).initial_asset == theirs
