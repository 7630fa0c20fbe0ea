"""Buying: the right price, once, with a timeout that suffices, and the money back."""

import pytest
from buyer_world import BUYER, a_buyer
from permission_world import CLOUD, HOSPITAL, LONGEST, PARAMETERS

from nevermined_fl import assets, permissions
from nevermined_fl.errors import ChainError, InvalidRequest, NotFound, SettingsError
from nevermined_fl.marketplace.quote import timeout_blocks
from nevermined_fl.session.plan import Plan


def test_a_quote_lists_every_purchase_and_the_total(tmp_path):
    buyer, world = a_buyer()
    quote = buyer.quote(world.session)
    assert [(p.role, p.price) for p in quote.positions] == [
        ("participant", 15),
        ("participant", 20),
        ("coordinator", 7),
    ]
    assert (quote.total(), quote.balance, quote.missing()) == (42, 1000, 0)
    assert quote.max_duration == LONGEST
    assert f"{quote.timeout} blocks after its creation" in quote.meaning()
    assert quote.to_json()["total"] == 42


def test_a_quote_says_what_is_missing():
    buyer, world = a_buyer()
    world.chain.fund(BUYER.address, -970)
    assert buyer.quote(world.session).missing() == 12
    with pytest.raises(SettingsError, match=r"costs 0\.0{16}42 tokens and .* has 0\.0{16}3; nothing was sent"):
        buyer.order_all(world.session)
    assert world.chain.agreements_of(BUYER.address) == ()


def test_a_coordinator_cannot_be_bought_where_nobody_can_connect_to():
    buyer, world = a_buyer()
    closed = world.publish_compute(inbound=False)
    session = world.publish_session(compute=closed)
    with pytest.raises(InvalidRequest, match="no inbound connections"):
        buyer.quote(session)


def test_an_order_moves_exactly_the_price_into_escrow_and_gateways_accept_it():
    buyer, world = a_buyer()
    agreements = buyer.order_all(world.session)
    assert buyer.balance() == 1000 - 42
    assert {p.did: (p.price, p.state) for p in buyer.payments(agreements.values())} == {
        world.dataset: (15, "locked"),
        world.other_dataset: (20, "locked"),
        world.compute: (7, "locked"),
    }
    grant = permissions.check_execution(
        world.chain,
        world.metadata,
        agreement_id=agreements[world.dataset],
        caller=BUYER.address,
        workflow_did=world.workflow,
        provider={HOSPITAL.address},
        min_blocks_left=10,
    )
    assert grant.did == world.dataset


def test_the_timeout_covers_the_plan_with_half_as_much_again_and_what_the_seller_asks():
    _, world = a_buyer()
    plan = Plan.from_parameters(PARAMETERS, (world.dataset, world.other_dataset))
    terms = world.terms(HOSPITAL, timeout_blocks=0)
    assert timeout_blocks(plan, block_seconds=2.0, terms=terms) == 263 + 20
    assert timeout_blocks(plan, block_seconds=2.0, terms=world.terms(HOSPITAL, timeout_blocks=99_999)) == 99_999


def test_an_order_that_broke_off_before_the_payment_is_taken_up_again():
    buyer, world = a_buyer()
    timeout = buyer.quote(world.session).timeout
    broken = world.order(world.dataset, pay=False, timeout=timeout)
    assert buyer.order(world.dataset, session=world.session) == broken
    assert world.chain.agreement(broken).state() == "locked"
    assert buyer.balance() == 1000 - 15


@pytest.mark.parametrize(
    "hostile",
    [
        {"timeout": 40},
        {"timelocks": (5, 0, 0)},
        {"timeouts": (900, 0, 900)},
        {"timeouts": (0, 0, 0)},
        {"amounts": (1, 1)},
    ],
)
def test_an_unpaid_agreement_that_no_gateway_would_take_is_left_alone(hostile):
    buyer, world = a_buyer()
    timeout = hostile.pop("timeout", buyer.quote(world.session).timeout)
    useless = world.order(world.dataset, pay=False, timeout=timeout, **hostile)
    made = buyer.order(world.dataset, session=world.session)
    assert made != useless
    assert world.chain.agreement(useless).state() == "unpaid"


def test_a_second_purchase_of_what_is_paid_has_to_be_asked_for():
    buyer, world = a_buyer()
    first = buyer.order(world.dataset, session=world.session)
    assert buyer.order(world.dataset, session=world.session, again=True) != first
    assert buyer.balance() == 1000 - 30


def test_what_the_session_does_not_need_is_not_bought():
    buyer, world = a_buyer()
    with pytest.raises(SettingsError, match="is no dataset of session"):
        buyer.order(world.publish_dataset(HOSPITAL), session=world.session)


def test_a_refund_returns_the_money_after_the_timeout_and_not_before():
    buyer, world = a_buyer()
    agreement = buyer.order(world.dataset, session=world.session)
    with pytest.raises(SettingsError, match="times out after block") as refused:
        buyer.refund(agreement)
    assert "minutes" in refused.value.hint
    world.chain.mine(world.chain.agreement(agreement).compute.timeout + 1)
    assert buyer.refund(agreement) == "refunded"
    assert buyer.balance() == 1000
    with pytest.raises(SettingsError, match="is refunded: there is nothing to refund"):
        buyer.refund(agreement)


def test_a_refund_that_broke_off_after_the_abort_is_finished():
    buyer, world = a_buyer()
    agreement = buyer.order(world.dataset, session=world.session)
    world.chain.mine(world.chain.agreement(agreement).compute.timeout + 1)
    world.chain.abort_by_timeout(BUYER, agreement)
    assert buyer.refund(agreement) == "refunded"
    assert buyer.balance() == 1000


def test_an_agreement_without_a_timeout_says_that_no_refund_exists():
    buyer, world = a_buyer()
    agreement = world.order(world.dataset, timeout=0)
    with pytest.raises(SettingsError, match="no refund exists") as refused:
        buyer.refund(agreement)
    assert "re-runnable" in refused.value.hint


def test_unpaid_paid_and_unknown_agreements_have_nothing_to_refund():
    buyer, world = a_buyer()
    unpaid = world.order(world.dataset, pay=False)
    with pytest.raises(SettingsError, match="is unpaid"):
        buyer.refund(unpaid)
    paid = buyer.order(world.compute, session=world.session)
    terms = assets.compute_terms(world.metadata.resolve(world.compute))
    world.chain.fulfill_compute(CLOUD, paid, did=world.compute, consumer=BUYER.address)
    world.chain.release(
        CLOUD, paid, did=world.compute, amounts=terms.amounts, receivers=terms.receivers, consumer=BUYER.address
    )
    assert buyer.payments([paid])[0].state == "paid"
    with pytest.raises(SettingsError, match="is paid"):
        buyer.refund(paid)
    with pytest.raises(NotFound, match="no agreement"):
        buyer.refund("0x" + "12" * 32)


class Unlucky:
    """A chain whose node is gone when it comes to paying."""

    def __init__(self, chain):
        self._chain = chain

    def __getattr__(self, name):
        return getattr(self._chain, name)

    def lock_payment(self, *_, **__):
        raise ChainError("the node is gone")


def test_an_order_that_cannot_be_paid_names_the_agreement_that_it_made():
    buyer, world = a_buyer()
    buyer.market.chain = Unlucky(world.chain)
    with pytest.raises(ChainError, match=r"agreement 0x[0-9a-f]{64} is made but not paid") as failed:
        buyer.order(world.dataset, session=world.session)
    assert "order again" in failed.value.hint
