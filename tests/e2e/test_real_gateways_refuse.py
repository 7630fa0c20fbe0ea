"""What real gateways refuse, asked over HTTP as anybody could: nobody gets more than he bought, and every no has a name."""

from __future__ import annotations

import copy
import time
from types import SimpleNamespace

import httpx
import pytest
from market_world import SERVICES, TOKEN, answer_of

from nevermined_fl import assets
from nevermined_fl.assets import About
from nevermined_fl.assets.integrity import seal
from nevermined_fl.metadata import publisher

pytestmark = pytest.mark.xdist_group("devnet")
UNKNOWN = "did:nv:" + "9" * 64


@pytest.fixture(scope="module")
def shop(world):
    """A session over the first two datasets; paid agreements on the first and third dataset and on compute."""
    deal = world.publish(*world.datasets[:2])
    first, _, third = world.datasets
    return SimpleNamespace(
        deal=deal,
        first=first,
        url=world.gateway(first),
        paid=world.buy(first),
        third=third,
        paid_third=world.buy(third),
        paid_compute=world.buy(world.service),
        theirs=world.buy(first, buyer=world.stranger),
    )


def refusal(world, shop, agreement, workflow="", **how):
    return world.execute(shop.url, agreement, workflow or shop.deal.workflow, **how).refusal


# --- agreements


def test_nothing_runs_without_an_agreement(world, shop):
    assert refusal(world, shop, "0x" + "7" * 64) == (403, "agreement_exists")


def test_nothing_runs_under_someone_else_s_agreement(world, shop):
    assert refusal(world, shop, shop.theirs) == (403, "consumer_is_caller")
    stranger = world.stranger.market.account
    assert refusal(world, shop, shop.paid, account=stranger) == (403, "consumer_is_caller")


def test_nothing_runs_before_it_is_paid(world, shop):
    assert refusal(world, shop, world.buy(shop.first, pay=False)) == (403, "lock_fulfilled")


def test_nothing_runs_below_the_price(world, shop):
    cheap = world.buy(shop.first, pay=False, amounts=(TOKEN,))
    assert refusal(world, shop, cheap) == (403, "conditions_match_ddo")


def test_an_agreement_is_good_for_its_own_dataset_alone(world, shop):
    url = world.gateway(shop.third)
    assert world.execute(url, shop.paid_third, shop.deal.workflow).refusal == (403, "workflow_contains_dataset")
    assert refusal(world, shop, shop.paid_third) == (403, "did_is_ours")


@pytest.mark.parametrize("timelocks", [(9, 0, 0), (0, 9, 0), (0, 0, 9)], ids=["compute", "lock", "escrow"])
def test_an_agreement_with_a_timelock_is_refused(world, shop, timelocks):
    hostile = world.buy(shop.first, pay=False, timelocks=timelocks)
    assert refusal(world, shop, hostile) == (403, "timelocks_zero")


def test_an_agreement_that_times_out_before_the_plan_may_end_is_refused(world, shop):
    assert refusal(world, shop, world.buy(shop.first, timeout=60)) == (403, "time_left")


def test_an_agreement_whose_escrow_or_lock_can_time_out_is_refused(world, shop):
    escrow = world.buy(shop.first, pay=False, timeouts=(5000, 0, 5000))
    lock = world.buy(shop.first, pay=False, timeouts=(5000, 5000, 0))
    assert refusal(world, shop, escrow) == refusal(world, shop, lock) == (403, "timeouts_supported")


def test_a_stranger_s_own_dataset_bought_in_the_victim_s_name_runs_nowhere(world, shop):
    market = world.stranger.market
    ddo = market.metadata.resolve(shop.first)
    terms = assets.compute_terms(ddo)
    own = market.publish(
        lambda who: assets.build_dataset(
            who,
            About("mine, they say", time.time()),
            gateway_url=shop.url,
            terms=terms,
            files=assets.files(ddo),
            schema=assets.dataset_schema(ddo),
        )
    )
    agreement = world.buy(own, buyer=world.stranger, pay=False, consumer=world.buyer.address)
    assert refusal(world, shop, agreement) == (403, "did_is_ours")


def test_a_coordinator_runs_under_an_agreement_about_its_compute_service_alone(world, shop):
    assert refusal(world, shop, shop.paid, shop.deal.session) == (403, "session_names_compute")
    url = world.gateway(world.service)
    assert world.execute(url, shop.paid_compute, shop.deal.workflow).refusal == (403, "workflow_contains_dataset")


# --- workflows


def test_a_workflow_of_another_owner_is_refused(world, shop):
    session = assets.session_of(world.buyer.show(shop.deal.workflow).ddo)
    workflow = publish_workflow(world.stranger, session, (shop.first,), world.algorithm.did)
    assert refusal(world, shop, shop.paid, workflow) == (403, "workflow_owned_by_caller")
    account = world.stranger.market.account
    assert refusal(world, shop, shop.theirs, workflow, account=account) == (403, "session_owned_by_caller")


def test_an_unknown_workflow_is_a_bad_request(world, shop):
    assert refusal(world, shop, shop.paid, UNKNOWN) == (400, "workflow_registered")
    assert refusal(world, shop, shop.paid, "did:nv:short") == (400, "id_format")


def test_an_asset_that_is_no_workflow_is_a_bad_request(world, shop):
    assert refusal(world, shop, shop.paid, world.algorithm.did) == (400, "workflow_kind")


@pytest.mark.parametrize("part", ["workflow", "session", "dataset"])
def test_an_edited_ddo_is_noticed(world, shop, part):
    edits = {
        "workflow": (shop.deal.workflow, lambda main: main["workflow"]["stages"].pop()),
        "session": (shop.deal.session, lambda main: main["parameters"].update(rounds=1)),
        "dataset": (shop.first, lambda main: main.update(price="1")),
    }
    did, edit = edits[part]
    with world.edited(did, lambda ddo: edit(ddo["service"][0]["attributes"]["main"])):
        check = {"dataset": "did_matches_ddo"}.get(part, f"{part}_matches_ddo")
        assert refusal(world, shop, shop.paid) == (403, check)


def test_what_is_no_ddo_is_a_bad_request(world, shop):
    with world.edited(shop.deal.workflow, lambda ddo: ddo.pop("service")):
        assert refusal(world, shop, shop.paid) == (400, "workflow_matches_ddo")


def test_the_metadata_api_takes_neither_an_edited_ddo_nor_an_invalid_one(world, shop):
    honest = world.buyer.show(shop.deal.workflow).ddo
    edited, shapeless = copy.deepcopy(honest), {"id": honest["id"]}
    edited["service"][0]["attributes"]["main"]["name"] = "better"
    assert publish_ddo(world, edited) == (400, "ddo_checksum")
    assert publish_ddo(world, shapeless) == (400, "ddo_shape")


def test_a_main_type_that_nobody_supports_is_a_bad_request(world, shop):
    did = smuggled(world, shop.deal.workflow, lambda main: main.update(type="quantum"), "main_type")
    assert refusal(world, shop, shop.paid, did) == (400, "workflow_kind")


def test_an_asset_of_a_kind_that_nobody_here_knows_hides_no_others_in_a_search(world, shop):
    did = smuggled(world, shop.deal.workflow, lambda main: main.update(type="quantum", name="odd"), "main_type")
    assert did in world.written_dids()
    found = {summary.did for summary in world.buyer.search("")}
    assert {*world.datasets, world.service} <= found
    assert did not in found


def test_a_coordinator_with_a_data_input_is_a_bad_request(world, shop):
    def read_data(main):
        main["workflow"]["stages"][0]["input"] = [{"index": 0, "id": shop.first}]

    did = smuggled(world, shop.deal.session, read_data, "ddo_shape")
    url = world.gateway(world.service)
    assert world.execute(url, shop.paid_compute, did).refusal == (400, "no_data_inputs")


# --- tokens


def test_an_assertion_is_good_once(world, shop):
    assertion = world.assertion(shop.url, "execute", sub=shop.paid, did=shop.deal.workflow)
    assert world.trade(shop.url, assertion).status == 200
    assert world.trade(shop.url, assertion).refusal == (401, "assertion_unused")


def test_an_expired_assertion_and_one_for_half_a_day_are_refused(world, shop):
    claims = {"sub": shop.paid, "did": shop.deal.workflow}
    expired = world.assertion(shop.url, "execute", now=time.time() - 600, ttl=300, **claims)
    endless = world.assertion(shop.url, "execute", ttl=12 * 3600, **claims)
    assert world.trade(shop.url, expired).refusal == (401, "token_expired")
    assert world.trade(shop.url, endless).refusal == (401, "token_expired")


def test_an_assertion_for_another_gateway_or_service_is_refused(world, shop):
    elsewhere = f"{world.gateway(shop.third)}{SERVICES}/execute"
    for audience in (elsewhere, f"{shop.url}{SERVICES}/everything"):
        assertion = world.assertion(shop.url, "execute", aud=audience, sub=shop.paid, did=shop.deal.workflow)
        assert world.trade(shop.url, assertion).refusal == (401, "token_audience")


def test_an_assertion_signed_with_another_key_than_it_names_is_refused(world, shop):
    account = SimpleNamespace(address=world.buyer.address, secret=world.stranger.market.account.secret)
    forged = world.assertion(shop.url, "execute", account=account, sub=shop.paid, did=shop.deal.workflow)
    assert world.trade(shop.url, forged).refusal == (401, "token_signature")


def test_an_access_token_opens_one_service_and_one_agreement(world, shop):
    traded = world.trade(shop.url, world.assertion(shop.url, "execute", sub=shop.paid, did=shop.deal.workflow))
    bearer = {"Authorization": f"Bearer {traded.body['access_token']}"}
    other = httpx.post(f"{shop.url}{SERVICES}/execute/{shop.theirs}", headers=bearer)
    service = httpx.get(f"{shop.url}{SERVICES}/download/0", headers=bearer)
    assert answer_of(other).refusal == (403, "token_agreement")
    assert answer_of(service).refusal == (401, "token_audience")
    assert answer_of(httpx.post(f"{shop.url}{SERVICES}/execute/{shop.paid}")).refusal == (401, "token_present")


def test_a_stranger_downloads_no_algorithm(world, shop):
    account = world.stranger.market.account
    did = world.algorithm.did
    answer = world.call(world.gateway(did), "GET", "download/0", "download", account=account, did=did)
    assert answer.refusal == (403, "download_allowed")


# --- what the refusals above are made of


def publish_workflow(buyer, session, datasets, algorithm):
    container = assets.container(buyer.show(session).ddo)
    return buyer.market.publish(
        lambda who: assets.build_workflow(
            who,
            About("workflow", time.time()),
            session=session,
            datasets=datasets,
            algorithm=algorithm,
            container=container,
        )
    )


def publish_ddo(world, ddo):
    url = f"{world.network.metadata_url}/api/v1/metadata/assets/ddo"
    return answer_of(httpx.post(url, json=ddo)).refusal


def smuggled(world, did, edit, check):
    """A DDO changed before it was sealed and registered; the metadata API refuses it by that name, its database does not."""
    ddo = copy.deepcopy(world.buyer.show(did).ddo)
    services = ddo["service"]
    services[0]["serviceEndpoint"] = services[0]["serviceEndpoint"].removesuffix(f"/{did}")
    edit(services[0]["attributes"]["main"])
    market = world.buyer.market
    changed = seal(ddo, publisher(market.account, name="buyer", metadata_url=market.metadata_url))
    assert publish_ddo(world, changed) == (400, check)
    return world.smuggle(changed)
