"""What a launcher refuses before anything runs, and what the coordinator's door refuses."""

from dataclasses import replace

import pytest
from launcher_world import BUYER, CLOUD, HOSPITAL, STRANGER, TRAINER

from nevermined_fl import assets
from nevermined_fl.errors import RequestError
from nevermined_fl.files import sha256_bytes
from nevermined_fl.launcher.admission import admit
from nevermined_fl.launcher.app import COMPUTE
from nevermined_fl.tokens import JobKey, make_join_token


async def refused(provider, agreement, workflow, consumer=BUYER):
    status, body = await provider.init(agreement, workflow, consumer)
    assert status >= 400
    assert provider.launcher.store.all() == ()
    return status, body["check"]


async def test_an_algorithm_that_was_not_approved(world):
    world.begin_session()
    agreement = world.agreements[HOSPITAL.address]
    world.hospital.launcher.approvals.revoke(sha256_bytes(TRAINER))
    assert await refused(world.hospital, agreement, world.workflow) == (403, "algorithm_approved")
    world.hospital.launcher.approvals.approve(sha256_bytes(TRAINER))
    assert (await world.hospital.init(agreement, world.workflow))[0] == 200


async def test_a_review_shows_the_provider_what_it_is_asked_to_run(world):
    world.begin_session()
    body = {"algorithm": world.algorithm, "workflow": world.workflow, "requestedBy": BUYER.address}
    status, answer = await world.clinic.ask("POST", "/fl/reviews", json=body)
    assert (status, answer["digest"], answer["fetched"]) == (200, sha256_bytes(TRAINER), True)
    assert world.clinic.launcher.content.path(answer["digest"]).read_bytes() == TRAINER
    assert [row["digest"] for row in (await world.clinic.ask("GET", "/fl/approvals"))[1]] == [answer["digest"]]


@pytest.mark.parametrize("body", [{}, {"algorithm": "did:nv:short"}, {"algorithm": 7}, []])
async def test_a_review_of_nothing(world, body):
    assert (await world.clinic.ask("POST", "/fl/reviews", json=body))[0] == 400


async def test_a_buyer_or_an_image_that_the_policy_does_not_name(world):
    world.begin_session()
    await world.hospital.stop()
    for change, check in (
        ({"buyers": (STRANGER.address,)}, "buyer_allowed"),
        ({"buyers": ()}, "buyer_allowed"),
        ({"buyers": (BUYER.address.lower(),), "images": ("another/image",)}, "image_allowed"),
    ):
        world.hospital.policy |= change
        await world.hospital.start()
        assert await refused(world.hospital, world.agreements[HOSPITAL.address], world.workflow) == (403, check)
        await world.hospital.stop()


async def test_a_dataset_that_is_not_here(world):
    world.begin_session()
    await world.hospital.stop()
    world.hospital.datasets = {}
    await world.hospital.start()
    assert await refused(world.hospital, world.agreements[HOSPITAL.address], world.workflow) == (403, "dataset_here")


async def test_permissions_are_asked_here_too(world):
    world.begin_session()
    unpaid = world.buy(world.hospital, pay=False)
    assert await refused(world.hospital, unpaid, world.workflow) == (403, "lock_fulfilled")
    foreign = world.agreements[world.clinic.account.address]
    assert await refused(world.hospital, foreign, world.workflow) == (403, "did_is_ours")
    ours = world.agreements[HOSPITAL.address]
    assert await refused(world.hospital, ours, world.session) == (403, "session_names_compute")
    assert await refused(world.hospital, "0x" + "77" * 32, world.workflow) == (403, "agreement_exists")


async def test_a_session_whose_initial_model_nobody_has(world):
    (world.cloud.home / "content" / sha256_bytes(b"initial model").removeprefix("sha256:")).unlink()
    world.begin_session()
    assert await refused(world.cloud, world.agreements[CLOUD.address], world.session) == (400, "initial_model_here")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"serviceAgreementId": 7}', b"[" * 100_000])
async def test_an_order_that_is_none(world, body):
    status, answer = await world.hospital.ask("POST", f"{COMPUTE}/init", data=body)
    assert status == 400
    assert answer["check"] in {"body_json", "serviceAgreementId_given"}


async def test_one_live_execution_and_one_run_per_agreement(world):
    world.begin_session()
    job = await world.begin(world.hospital)
    status, body = await world.hospital.init(world.agreements[HOSPITAL.address], world.workflow)
    assert (status, body["check"]) == (409, "one_live_execution")
    await world.begin(world.cloud)
    await world.begin(world.clinic)
    await world.hospital.wait(job)
    status, body = await world.hospital.init(world.agreements[HOSPITAL.address], world.workflow)
    assert (status, body["check"]) == (403, "not_settled")


@pytest.mark.parametrize(("blocks", "status"), [(400, 403), (0, 200)])
async def test_a_run_that_failed_may_be_repeated_only_without_a_timeout(world, blocks, status):
    """With a timeout there is a refund; without one this is all that the buyer has."""
    world.begin_session(timeout=blocks)
    job = await world.begin(world.cloud)
    await world.cloud.ask("DELETE", f"{COMPUTE}/stop/{job}")
    assert (await world.cloud.wait(job))["status"] == "Failed"
    answer, body = await world.cloud.init(world.agreements[CLOUD.address], world.session)
    assert answer == status
    if status == 403:
        assert body["check"] == "agreement_spent"
        return
    again = await world.run(world.hospital, world.clinic)
    assert {s["status"] for s in again} == {"Succeeded"}
    assert (await world.cloud.wait(body))["status"] == "Succeeded"


async def test_what_was_fetched_is_not_what_the_ddo_says(world):
    world.hosted[0] = TRAINER + b"import os"
    world.begin_session()
    job = await world.begin(world.hospital)
    await world.begin(world.cloud)
    (now,) = [await world.hospital.reach(job, "settling")]
    assert "more than the" in now["reason"]
    assert not world.hospital.launcher.content.has(sha256_bytes(TRAINER))


# --- the coordinator's door ------------------------------------------------------------------------------------------


@pytest.fixture
async def door(world):
    """Ask the coordinator's admission with a token that is right but for what a test changes."""
    world.begin_session()
    job = await world.begin(world.cloud)
    order = world.cloud.launcher.store.get(job).order

    def ask(account=HOSPITAL, **changes):
        key = JobKey.create()
        claims = {
            "session": world.session,
            "did": world.hospital.did,
            "agreement": world.agreements[HOSPITAL.address],
            "thumbprint": key.thumbprint,
            "ttl": 60,
        }
        token = make_join_token(account, **claims | changes)
        return admit(world.chain, order, token, now=world.cloud.launcher.clock()), key

    return world, ask


async def test_a_listed_dataset_with_a_paid_agreement_is_let_in(door):
    world, ask = door
    admitted, key = ask()
    assert (admitted.participant, admitted.agreement) == (world.hospital.did, world.agreements[HOSPITAL.address])
    assert admitted.thumbprint == key.thumbprint


async def check_refused(ask, check, *arguments, **changes):
    with pytest.raises(RequestError) as caught:
        ask(*arguments, **changes)
    assert caught.value.check == check


async def test_everybody_else_is_not(door):
    world, ask = door
    await check_refused(ask, "token_signer", STRANGER)
    await check_refused(ask, "token_audience", session=world.workflow)
    await check_refused(ask, "token_expired", ttl=-1)
    await check_refused(ask, "dataset_listed", did=world.compute)
    await check_refused(ask, "agreement_exists", agreement="0x" + "77" * 32)
    await check_refused(ask, "agreement_for_dataset", agreement=world.agreements[world.clinic.account.address])
    await check_refused(ask, "lock_fulfilled", agreement=world.buy(world.hospital, pay=False))


async def test_somebody_else_s_purchase_of_the_same_dataset(door):
    world, ask = door
    world.chain.fund(STRANGER.address, 100)
    price = {"did": world.hospital.did, "amounts": (12,), "receivers": (HOSPITAL.address,)}
    agreement = world.chain.create_agreement(STRANGER, timeout=400, **price)
    world.chain.lock_payment(STRANGER, agreement, **price)
    await check_refused(ask, "consumer_owns_session", agreement=agreement)


async def test_a_stranger_s_own_dataset_with_the_buyer_as_consumer(door):
    """Anybody can sell his own DID to the victim; the session does not list it."""
    world, ask = door
    ddo = assets.build_dataset(
        world.who(STRANGER),
        world.about(),
        gateway_url="http://127.0.0.1:9",
        terms=world.terms(world.hospital),
        files=[assets.FileEntry("x", "text/csv", 1, "ab" * 32)],
        schema=assets.Schema((assets.Column("x", "int64"),), 1),
    )
    did = world.publish_ddo(STRANGER, ddo)
    world.chain.fund(STRANGER.address, 100)
    price = {"did": did, "amounts": (12,), "receivers": (HOSPITAL.address,)}
    agreement = world.chain.create_agreement(STRANGER, timeout=400, consumer=BUYER.address, **price)
    world.chain.lock_payment(STRANGER, agreement, **price)
    await check_refused(ask, "dataset_listed", STRANGER, did=did, agreement=agreement)
    await check_refused(ask, "agreement_for_dataset", agreement=agreement)


async def test_a_forged_token_in_a_real_join_leaves_the_session_alone(world):
    world.begin_session(participant_0="forge", wanted=1)
    forger, honest = sorted((world.hospital, world.clinic), key=lambda provider: provider.did)
    cloud, job = await world.begin(world.cloud), await world.begin(forger)
    assert (await forger.reach(job, "settling"))["reason"] == "the coordinator refused"
    assert (await honest.wait(await world.begin(honest)))["payment"] == "paid"
    assert (await world.cloud.wait(cloud))["payment"] == "paid"
    assert (await forger.wait(job))["payment"] == "locked"


@pytest.mark.parametrize("way", ["provider", "owner"])
async def test_a_compute_service_that_a_buyer_made_in_this_providers_name(world, way):
    """The registry asks nobody who is made provider or owner of a DID: the buyer would run here and pay himself."""
    terms = replace(world.terms(world.cloud, inbound=True), amounts=(1,), receivers=(BUYER.address,))
    world.compute = world.publish(BUYER, assets.build_compute, terms, world.cloud)
    world.begin_session()
    price = {"did": world.compute, "amounts": (1,), "receivers": (BUYER.address,)}
    agreement = world.chain.create_agreement(BUYER, timeout=400, **price)
    world.chain.lock_payment(BUYER, agreement, **price)
    assert await refused(world.cloud, agreement, world.session) == (403, "did_is_ours")
    if way == "provider":
        ddo = world.metadata.resolve(world.compute)
        checksum, url = assets.registry_checksum(ddo), ddo["service"][0]["serviceEndpoint"]
        seed = assets.did_seed(ddo)
        world.chain.register(BUYER, seed=seed, checksum=checksum, url=url, providers=(CLOUD.address,))
    else:
        world.chain.transfer_ownership(BUYER, world.compute, CLOUD.address)
    assert await refused(world.cloud, agreement, world.session) == (403, "did_matches_ddo")
