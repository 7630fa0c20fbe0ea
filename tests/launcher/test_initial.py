"""What a session begins with: an upload, an earlier model, or nothing; and nobody gets a file that he may not download."""

import numpy as np
import pytest
from launcher_world import BUYER, CLINIC, CLOUD, HOSPITAL, SCHEMA, STRANGER, entry

from nevermined_fl import assets
from nevermined_fl.codecs import safetensors
from nevermined_fl.files import sha256_bytes
from nevermined_fl.launcher.order import Order
from nevermined_fl.session.plan import FROM_PARTICIPANT
from nevermined_fl.settings import PolicySettings

EARLIER = safetensors.dump({"weights": np.array([2, 3, 5], np.float32)})


def publish_model(world, body=EARLIER, *, owner=BUYER, maker=CLINIC):
    """A model at the clinic's gateway."""
    world.hosted[1] = body
    ddo = assets.build_model(
        world.who(maker),
        world.about(),
        gateway_url=world.clinic.gateway_url,
        session="did:nv:" + "5e" * 32,
        files=[entry("card.json", b"{}"), entry("model.safetensors", body)],
        metrics={},
    )
    did = world.publish_ddo(maker, ddo)
    if owner is not maker:
        world.chain.transfer_ownership(maker, did, owner.address)
    return did


def continuing(world, did, body=EARLIER):
    world.begin_session(plan=world.plan(initial_asset=did, initial_model=sha256_bytes(body)))


async def refused(world):
    status, body = await world.cloud.init(world.agreements[CLOUD.address], world.session)
    return status, body["check"]


async def test_a_session_continues_from_an_earlier_model(world):
    did = publish_model(world)
    world.chain.grant_permission(BUYER, did, CLOUD.address)
    continuing(world, did)
    statuses = await world.run()
    assert [each["payment"] for each in statuses] == ["paid"] * 3
    (model,) = [ddo for ddo in world.models() if ddo["id"] != did]
    assert assets.files(model)[0].sha256 == sha256_bytes(EARLIER + b" trained").removeprefix("sha256:")
    # It was for this job alone: a digest that is public must not be a way to it later.
    assert not world.cloud.launcher.content.has(sha256_bytes(EARLIER))


async def test_a_session_that_a_participant_begins_needs_no_file(world):
    world.begin_session(plan=world.plan(initial_model=FROM_PARTICIPANT, round_timeout=40.0))
    statuses = await world.run()
    assert [each["payment"] for each in statuses] == ["paid"] * 3
    (job,) = world.cloud.launcher.store.all()
    assert job.order.file is None
    assert Order.from_json(job.order.to_json()) == job.order


async def test_a_model_that_its_buyer_may_not_download_begins_nothing(world):
    """The provider may: it made the model for somebody else, or was trusted with it by him."""
    did = publish_model(world, owner=STRANGER)
    world.chain.grant_permission(STRANGER, did, CLOUD.address)
    continuing(world, did)
    assert await refused(world) == (403, "download_allowed")


async def test_a_model_that_the_coordinator_s_provider_may_not_download_begins_nothing(world):
    continuing(world, publish_model(world))
    assert await refused(world) == (403, "download_allowed")


async def test_an_asset_of_the_buyer_s_that_names_another_s_file(world):
    """Its digest is public, and the file lies at the very provider, who made it for somebody else."""
    world.cloud.launcher.content.add(world.write("secret", EARLIER))
    mine = publish_model(world, EARLIER, maker=BUYER)
    world.hosted[1] = b"what the buyer has in its place"
    world.chain.grant_permission(BUYER, mine, CLOUD.address)
    continuing(world, mine)
    job = await world.begin(world.cloud)
    status = await world.cloud.wait(job)
    assert (status["status"], status["payment"]) == ("Failed", "locked")
    assert "expected sha256:" in status["reason"]


@pytest.mark.parametrize("wrong", ["digest", "size", "no asset"])
async def test_a_plan_that_names_another_file_than_the_asset_has(world, wrong):
    did = "did:nv:" + "0f" * 32
    if wrong != "no asset":
        did = publish_model(world, EARLIER + b"!" * (wrong == "size"))
        world.chain.grant_permission(BUYER, did, CLOUD.address)
    continuing(world, did, {"digest": b"another", "size": EARLIER + b"!", "no asset": EARLIER}[wrong])
    expected = (400, "asset_registered") if wrong == "no asset" else (400, "initial_asset_file")
    assert await refused(world) == expected


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"max_rounds": 1}, "the plan has 2 rounds; this provider allows 1"),
        ({"max_model_bytes": 11}, "the plan has 12 bytes of tensors; this provider allows 11"),
        # 30 s of selection, then 2 rounds of 60 s training, once repeated, and 20 s evaluation.
        ({"max_session_seconds": 309}, "the plan has 310 seconds at its slowest; this provider allows 309"),
    ],
)
async def test_a_plan_beyond_the_provider_s_policy_is_refused_by_name(world, bound, said):
    for provider in (world.cloud, world.hospital):
        await provider.stop()
        provider.policy |= bound
        await provider.start()
    world.begin_session(plan=world.plan(repeats=1, evaluation_timeout=20.0))
    for provider, workflow in ((world.cloud, world.session), (world.hospital, world.workflow)):
        status, body = await provider.init(world.agreements[provider.account.address], workflow)
        assert (status, body["check"]) == (403, "plan_allowed")
        assert said in body["message"]


async def test_checkpoints_are_bounded_where_they_are_kept(world):
    for provider in (world.cloud, world.hospital):
        await provider.stop()
        provider.policy |= {"max_model_bytes": 23}
        await provider.start()
    world.begin_session(plan=world.plan(checkpoint_every=1))
    status, body = await world.cloud.init(world.agreements[CLOUD.address], world.session)
    assert (status, body["check"]) == (403, "plan_allowed")
    assert "the plan has 24 bytes of checkpoints; this provider allows 23" in body["message"]
    assert (await world.hospital.init(world.agreements[HOSPITAL.address], world.workflow))[0] == 200


def test_a_bound_of_nothing_is_none():
    assert SCHEMA[0].size() == 12
    assert PolicySettings(max_rounds=0, max_model_bytes=0, max_session_seconds=0).max_rounds == 0
