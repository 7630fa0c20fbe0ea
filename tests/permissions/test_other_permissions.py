"""Watching and downloading: who else may ask, and for what."""

import pytest
from permission_cases import UNKNOWN
from permission_world import BUYER, CLINIC, HOSPITAL, STRANGER, Edited, open_market

from nevermined_fl import permissions
from nevermined_fl.errors import InvalidRequest, PermissionDenied, RequestError


@pytest.fixture
def market():
    return open_market()


class TestWatching:
    """check_party: status, logs and stop."""

    def ask(self, market, agreement, caller=BUYER.address, provider=HOSPITAL.address):
        return permissions.check_party(market.chain, agreement_id=agreement, caller=caller, provider=(provider,))

    def test_the_buyer_may_watch_whatever_has_become_of_the_agreement(self, market):
        agreement = market.order(market.dataset)
        market.chain.fulfill_compute(HOSPITAL, agreement, did=market.dataset, consumer=BUYER.address)
        assert self.ask(market, agreement).id == agreement

    @pytest.mark.parametrize(
        ("changes", "check"),
        [
            ({"agreement": "0x" + "7" * 64}, "agreement_exists"),
            ({"caller": STRANGER.address}, "consumer_is_caller"),
            ({"provider": CLINIC.address}, "did_is_ours"),
        ],
    )
    def test_others_may_not(self, market, changes, check):
        with pytest.raises(PermissionDenied) as refused:
            self.ask(market, **({"agreement": market.order(market.dataset)} | changes))
        assert refused.value.check == check


class TestDownloading:
    """check_download: owners, providers and grantees."""

    def ask(self, market, caller, did=None, metadata=None):
        did = did or market.algorithm
        return permissions.check_download(market.chain, metadata or market.metadata, did=did, caller=caller.address)

    def test_the_owner_may_download_and_a_grantee_after_the_grant(self, market):
        assert self.ask(market, BUYER).creator == BUYER.address
        with pytest.raises(PermissionDenied):
            self.ask(market, HOSPITAL)
        market.chain.grant_permission(BUYER, market.algorithm, HOSPITAL.address)
        found = self.ask(market, HOSPITAL)
        assert [file.sha256 for file in found.files] == ["c1" * 32, "c2" * 32]

    def test_the_creator_is_who_sealed_it_not_who_owns_it_now(self, market):
        market.chain.transfer_ownership(BUYER, market.algorithm, STRANGER.address)
        assert self.ask(market, STRANGER).creator == BUYER.address

    @pytest.mark.parametrize(
        ("build", "kind", "check"),
        [
            (lambda _: {"caller": BUYER, "did": UNKNOWN}, InvalidRequest, "asset_registered"),
            (lambda _: {"caller": STRANGER}, PermissionDenied, "download_allowed"),
            (lambda market: {"caller": BUYER, "metadata": other_digest(market)}, PermissionDenied, "asset_matches_ddo"),
            (lambda market: {"caller": BUYER, "did": market.workflow}, InvalidRequest, "asset_matches_ddo"),
        ],
    )
    def test_refusals(self, market, build, kind, check):
        with pytest.raises(RequestError) as refused:
            self.ask(market, **build(market))
        assert (type(refused.value), refused.value.check) == (kind, check)


def other_digest(market):
    def edit(ddo):
        ddo["service"][0]["attributes"]["main"]["files"][0]["checksum"] = "ee" * 32
        return ddo

    return Edited(market.metadata, market.algorithm, edit)


def test_the_owner_of_a_workflow_is_told_from_others(market):
    permissions.check_owner(market.chain, did=market.workflow, caller=BUYER.address)
    with pytest.raises(PermissionDenied) as refused:
        permissions.check_owner(market.chain, did=market.workflow, caller=STRANGER.address)
    assert refused.value.check == "workflow_owned_by_caller"
