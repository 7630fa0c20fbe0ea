"""What every chain does: the life of an agreement to the token and the block, and all that a stranger may not do.

One suite over the real contracts on a real node and over MemoryChain, which so proves to play by their rules.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from chain_fixtures import TOKENS, rpc

from nevermined_fl.chain.memory import MemoryChain
from nevermined_fl.errors import ChainError, InvalidRequest, NotFound
from nevermined_fl.keys import KeyAccount, keccak
from nevermined_fl.ports import ConditionState, ProvenanceEdge

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.ports import Chain

pytestmark = pytest.mark.xdist_group("chain")

UNFULFILLED, FULFILLED, ABORTED = ConditionState.UNFULFILLED, ConditionState.FULFILLED, ConditionState.ABORTED
ACTIVITY = "did:nv:" + "ac" * 32
CHECKSUM = "0x" + "c5" * 32
URL = "http://127.0.0.1:5000/ddo"
# DIDRegistry.hashDID(0x11..11, 0xf39F..2266)
KNOWN_DID = "did:nv:36fdd6f76f1327a934b42fa4d34efce4fe38d6307d549b0f351164e22cf8adfa"


@dataclass
class World:
    """A chain, four accounts with tokens on it, and what tests may do."""

    chain: Chain
    mine: Callable[[int], None]
    provider: KeyAccount
    buyer: KeyAccount
    friend: KeyAccount
    stranger: KeyAccount
    dataset: str
    """The provider's."""

    def asset(self, owner, providers=()):
        return self.chain.register(owner, seed=seed(), checksum=CHECKSUM, url=URL, providers=providers)

    def sale(self, **changes):
        return Sale(self, **changes)


class Sale:
    """An agreement at a price of 12 + 3 tokens for the dataset's provider and his partner."""

    def __init__(self, world, *, did="", consumer="", creator=None, timeout=0, **changes):
        self.chain, self.provider, self.buyer = world.chain, world.provider, world.buyer
        self.did, self.consumer = did or world.dataset, consumer or world.buyer.address
        self.partner = KeyAccount.create().address
        self.price = {"did": self.did, "amounts": [12, 3], "receivers": [self.provider.address, self.partner]}
        self.before = self.balances
        terms = {"consumer": self.consumer, "timeout": timeout} | self.price | changes
        self.id = self.chain.create_agreement(creator or self.buyer, **terms)

    def lock(self, payer=None):
        self.chain.lock_payment(payer or self.buyer, self.id, **self.price)

    def fulfill(self, account=None):
        return self.chain.fulfill_compute(account or self.provider, self.id, did=self.did, consumer=self.consumer)

    def release(self, account=None):
        self.chain.release(account or self.provider, self.id, **self.price, consumer=self.consumer)

    def abort(self, account=None):
        self.chain.abort_by_timeout(account or self.buyer, self.id)

    @property
    def agreement(self):
        return self.chain.agreement(self.id)

    @property
    def states(self):
        agreement = self.agreement
        return agreement.compute.state, agreement.lock.state, agreement.escrow.state

    @property
    def balances(self):
        return tuple(self.chain.balance(a) for a in (self.buyer.address, self.provider.address, self.partner))

    @property
    def moved(self):
        """Tokens that buyer, provider and partner gained by this sale."""
        return tuple(now - before for now, before in zip(self.balances, self.before, strict=True))


PAID, IN_ESCROW, NOTHING = (-15, 12, 3), (-15, 0, 0), (0, 0, 0)


def seed() -> str:
    return "0x" + secrets.token_hex(32)


@pytest.fixture(params=["memory", "nevermined"])
def world(request):
    return memory_world() if request.param == "memory" else request.getfixturevalue("real_world")


def memory_world():
    chain, accounts = MemoryChain(), [KeyAccount.create() for _ in range(4)]
    for account in accounts:
        chain.fund(account.address, TOKENS)
    return World(chain, chain.mine, *accounts, dataset_of(chain, accounts[0]))


@pytest.fixture(scope="module")
def real_world(chain_network, funded):
    from nevermined_fl.chain import connect  # noqa: PLC0415  web3 takes 3 s, which the memory chain's worker need not spend

    chain, accounts = connect(chain_network), [funded() for _ in range(4)]
    return World(
        chain,
        lambda blocks: rpc(chain_network.rpc_url, "anvil_mine", hex(blocks)),
        *accounts,
        dataset_of(chain, accounts[0]),
    )


def dataset_of(chain, provider):
    return chain.register(provider, seed=seed(), checksum=CHECKSUM, url=URL)


def refused(words=None):
    """The contract itself says no, so that a retry is useless."""
    return pytest.raises(ChainError, match=words, check=lambda error: error.reverted)


# --- the life of an agreement ------------------------------------------------------------------------------------


def test_a_purchase_from_order_to_payment(world):
    sale = world.sale(timeout=50)
    assert sale.agreement.state() == "unpaid"
    assert (sale.agreement.did, sale.agreement.consumer) == (world.dataset, world.buyer.address)
    assert sale.agreement.template == world.chain.contract_address("EscrowComputeExecutionTemplate")
    assert sale.agreement.template_approved
    assert (sale.agreement.compute.timeout, sale.agreement.lock.timeout, sale.agreement.escrow.timeout) == (50, 0, 0)

    sale.lock()
    assert sale.agreement.state() == "locked"
    assert sale.moved == IN_ESCROW

    assert sale.fulfill() == FULFILLED
    assert sale.moved == IN_ESCROW

    sale.release()
    assert sale.agreement.state() == "paid"
    assert sale.moved == PAID


def test_who_is_late_worked_for_nothing_and_the_buyer_gets_all_back(world):
    sale = world.sale(timeout=5)
    sale.lock()
    world.mine(6)
    assert sale.fulfill() == ABORTED  # by a transaction that succeeds
    assert sale.agreement.state() == "aborted"
    assert sale.moved == IN_ESCROW
    sale.release()
    assert sale.agreement.state() == "refunded"
    assert sale.moved == NOTHING


@pytest.mark.parametrize(("blocks_after_expiry", "state"), [(0, FULFILLED), (1, ABORTED)])
def test_the_last_block_is_the_one_that_expires_says(world, blocks_after_expiry, state):
    sale = world.sale(timeout=5)
    last = sale.agreement.compute.expires()
    assert last == sale.agreement.compute.created + 5
    world.mine(last - world.chain.block_number() - 1 + blocks_after_expiry)
    assert sale.fulfill() == state


def test_timeouts_count_from_creation_and_money_is_taken_even_after(world):
    sale = world.sale(timeout=3)
    world.mine(4)
    sale.lock()
    assert sale.agreement.state() == "locked"
    sale.abort()
    sale.release()
    assert sale.moved == NOTHING


def test_an_abort_needs_the_timeout_and_then_anybody_may_refund(world):
    sale, stranger = world.sale(timeout=10), world.stranger
    sale.lock()
    with refused():
        sale.abort()
    world.mine(11)
    sale.abort(stranger)
    assert sale.states == (ABORTED, FULFILLED, UNFULFILLED)
    before = world.chain.balance(stranger.address)
    sale.release(stranger)
    assert sale.states == (ABORTED, FULFILLED, FULFILLED)
    assert sale.moved == NOTHING
    assert world.chain.balance(stranger.address) == before


def test_without_a_timeout_there_is_no_way_back(world):
    sale = world.sale(timeout=0)
    assert sale.agreement.compute.expires() is None
    sale.lock()
    world.mine(100)
    with refused():
        sale.abort()
    with refused():
        sale.release()
    assert sale.moved == IN_ESCROW
    assert sale.fulfill() == FULFILLED


def test_what_is_fulfilled_cannot_be_aborted(world):
    sale = world.sale(timeout=5)
    sale.fulfill()
    world.mine(10)
    with refused():
        sale.abort()


def test_work_may_be_declared_done_before_anybody_paid(world):
    sale = world.sale()
    assert sale.fulfill() == FULFILLED  # so a provider looks at the lock first
    assert sale.agreement.state() == "unpaid"
    with refused():
        sale.release()


def test_a_stranger_who_releases_gets_nothing(world):
    sale, before = world.sale(), world.chain.balance(world.stranger.address)
    sale.lock()
    sale.fulfill()
    sale.release(world.stranger)
    assert sale.moved == PAID
    assert world.chain.balance(world.stranger.address) == before


# --- what others may not do --------------------------------------------------------------------------------------


def test_neither_stranger_nor_buyer_can_say_that_the_work_is_done(world):
    sale = world.sale()
    for account in (world.stranger, world.buyer):
        with refused("Invalid DID owner/provider"):
            sale.fulfill(account)
    assert sale.agreement.compute.state == UNFULFILLED


def test_a_listed_provider_may_download_and_fulfil_but_a_granted_permission_is_download_alone(world):
    chain, provider, grantee, stranger = world.chain, world.provider, world.friend, world.stranger
    did = world.asset(world.buyer, providers=[provider.address])
    with refused():
        chain.grant_permission(stranger, did, stranger.address)
    chain.grant_permission(world.buyer, did, grantee.address)
    may = [chain.may_download(did, a.address) for a in (world.buyer, provider, grantee, stranger)]
    assert may == [True, True, True, False]
    sale = world.sale(did=did)
    with refused("Invalid DID owner/provider"):
        sale.fulfill(grantee)
    assert sale.fulfill(provider) == FULFILLED


def test_anybody_can_name_a_victim_as_consumer_of_his_own_did(world):
    stranger, victim = world.stranger, KeyAccount.create().address
    before = world.chain.balance(stranger.address)
    sale = world.sale(did=world.asset(stranger), consumer=victim, creator=stranger, timeout=3)
    sale.lock(stranger)
    assert sale.agreement.consumer == victim
    assert sale.agreement.state() == "locked"
    assert world.chain.agreements_of(victim) == (sale.id,)  # so that alone admits to nothing
    world.mine(4)
    sale.abort(stranger)
    sale.release(stranger)
    assert world.chain.balance(victim) == 0
    assert world.chain.balance(stranger.address) == before  # a refund goes to who made the agreement


def test_who_cannot_pay_does_not(world):
    dear = {"did": world.dataset, "amounts": [10 * TOKENS], "receivers": [world.provider.address]}
    before = world.chain.balance(world.buyer.address)
    agreement = world.chain.create_agreement(world.buyer, **dear, timeout=0)
    with refused("exceeds balance"):
        world.chain.lock_payment(world.buyer, agreement, **dear)
    assert world.chain.agreement(agreement).state() == "unpaid"
    assert world.chain.balance(world.buyer.address) == before


def test_less_than_the_price_is_not_taken(world):
    sale = world.sale()
    with refused():
        world.chain.lock_payment(sale.buyer, sale.id, **sale.price | {"amounts": [12, 2]})
    assert sale.agreement.state() == "unpaid"
    assert sale.moved == NOTHING


def test_other_terms_have_other_condition_ids(world):
    sale = world.sale()
    agreement = sale.agreement
    held = agreement.compute.id, agreement.lock.id, agreement.escrow.id
    terms = sale.price | {"consumer": sale.consumer}

    def same(**changes):
        expected = world.chain.expected_conditions(sale.id, **terms | changes)
        return tuple(a == b for a, b in zip(held, expected, strict=True))

    assert same() == (True, True, True)
    assert same(amounts=[12, 2]) == (True, False, False)
    assert same(amounts=[3, 12]) == (True, False, False)
    assert same(receivers=[sale.partner, sale.provider.address]) == (True, False, False)
    assert same(consumer=sale.provider.address) == (False, True, False)
    assert same(did="did:nv:" + "00" * 32) == (False, False, False)
    elsewhere = world.chain.expected_conditions("0x" + "00" * 32, **terms)
    assert not set(elsewhere) & set(held)


# --- timelocks and timeouts, which the buyer chooses and no id shows ---------------------------------------------


def test_a_timelock_keeps_the_provider_from_fulfilling_until_it_is_over(world):
    sale = world.sale(timelocks=(20, 0, 0))
    with refused():
        sale.fulfill()
    world.mine(20)
    assert sale.fulfill() == FULFILLED


def test_a_timelock_on_the_escrow_keeps_the_money_from_the_provider(world):
    sale = world.sale(timelocks=(0, 0, 20))
    sale.lock()
    sale.fulfill()
    with refused():
        sale.release()
    assert sale.moved == IN_ESCROW
    world.mine(20)
    sale.release()
    assert sale.moved == PAID


def test_a_timeout_on_the_escrow_leaves_it_aborted_though_it_pays_once(world):
    sale = world.sale(timeouts=(100, 0, 8))
    sale.lock()
    sale.fulfill()
    world.mine(9)
    sale.release()
    assert sale.moved == PAID
    assert sale.states == (FULFILLED, FULFILLED, ABORTED)  # so such an agreement is not taken at all
    with refused():
        sale.release()
    assert sale.moved == PAID


def test_timelocks_and_timeouts_do_not_show_in_the_ids(world):
    sale = world.sale(timelocks=(1, 2, 3), timeouts=(40, 50, 60))
    agreement = sale.agreement
    expected = world.chain.expected_conditions(sale.id, **sale.price, consumer=sale.consumer)
    conditions = (agreement.compute, agreement.lock, agreement.escrow)
    assert tuple(c.id for c in conditions) == expected
    assert [(c.timelock, c.timeout) for c in conditions] == [(1, 40), (2, 50), (3, 60)]


# --- doing it twice ----------------------------------------------------------------------------------------------


def test_what_is_done_already_costs_no_transaction(world):
    chain, sale, friend, number = world.chain, world.sale(timeout=1), world.friend, seed()
    sale.lock()

    def do():
        did = chain.register(world.provider, seed=number, checksum=CHECKSUM, url=URL, providers=[friend.address])
        chain.grant_permission(world.provider, did, friend.address)
        chain.used(world.provider, did=did, activity=ACTIVITY)
        chain.was_derived_from(world.provider, new=sale.did, source=did, activity=ACTIVITY)
        chain.was_associated_with(world.provider, did=did, activity=ACTIVITY)
        sale.lock()
        sale.abort()
        sale.release()
        return sale.fulfill(), did

    world.mine(2)
    state, did = do()
    chain.transfer_ownership(world.provider, did, friend.address)
    block = chain.block_number()
    chain.transfer_ownership(world.provider, did, friend.address)
    assert do() == (state, did) == (ABORTED, did)
    assert chain.block_number() == block
    assert chain.registration(did).owner == friend.address
    assert sale.moved == NOTHING
    with refused():
        chain.register(world.provider, seed=number, checksum="0x" + "00" * 32, url=URL)


# --- DIDs and provenance -----------------------------------------------------------------------------------------


def test_a_did_is_its_makers_until_he_gives_it_away(world):
    maker, friend, heir, number = world.provider, world.friend, world.buyer, seed()
    did = world.chain.register(maker, seed=number, checksum=CHECKSUM, url=URL, providers=[friend.address])
    assert did == world.chain.compute_did(number, maker.address) != world.chain.compute_did(number, heir.address)
    held = world.chain.registration(did)
    assert (held.did, held.owner, held.checksum, held.url) == (did, maker.address, CHECKSUM, URL)
    assert (held.providers, held.block) == ((friend.address,), world.chain.block_number())
    with refused("Only owner"):
        world.chain.transfer_ownership(friend, did, friend.address)
    world.chain.transfer_ownership(maker, did, heir.address)
    assert world.chain.registration(did).owner == heir.address
    assert [world.chain.may_download(did, a.address) for a in (heir, maker)] == [True, False]


def test_a_did_is_what_the_contract_makes_of_seed_and_owner(world):
    assert world.chain.compute_did("0x" + "11" * 32, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266") == KNOWN_DID


def test_only_the_datasets_owner_says_what_was_made_of_it(world):
    chain, hospital, trainer = world.chain, world.provider, world.friend
    dataset, model = world.asset(hospital), world.asset(trainer)
    for attempt in (
        lambda: chain.used(trainer, did=dataset, activity=ACTIVITY),
        lambda: chain.was_derived_from(trainer, new=model, source=dataset, activity=ACTIVITY),
        lambda: chain.was_associated_with(hospital, did=model, activity=ACTIVITY),
    ):
        with refused("Invalid user"):
            attempt()
    assert chain.provenance(dataset) == ()
    chain.used(hospital, did=dataset, activity=ACTIVITY)
    chain.was_derived_from(hospital, new=model, source=dataset, activity=ACTIVITY)
    chain.was_associated_with(trainer, did=model, activity=ACTIVITY)
    assert [(e.relation, e.did, e.other, e.agent) for e in chain.provenance(model)] == [
        ("wasDerivedFrom", model, dataset, hospital.address),
        ("wasAssociatedWith", model, "", trainer.address),
    ]
    block = chain.block_number()
    assert chain.provenance(dataset) == (
        ProvenanceEdge("used", dataset, "", hospital.address, ACTIVITY, block - 2),
        ProvenanceEdge("wasDerivedFrom", model, dataset, hospital.address, ACTIVITY, block - 1),
    )


def test_a_stranger_may_claim_his_own_did_as_a_source_of_any_model(world):
    model, junk = world.asset(world.friend), world.asset(world.stranger)
    world.chain.was_derived_from(world.stranger, new=model, source=junk, activity=ACTIVITY)
    # so a reader keeps only edges whose DIDs belong to the session
    assert [e.other for e in world.chain.provenance(model)] == [junk]


def test_who_gave_the_model_away_can_no_longer_be_associated_with_it(world):
    trainer, heir = world.friend, world.buyer
    model = world.asset(trainer)
    world.chain.transfer_ownership(trainer, model, heir.address)
    with refused("Invalid user"):
        world.chain.was_associated_with(trainer, did=model, activity=ACTIVITY)
    # the registry itself associates the new owner, with an activity of its own
    (edge,) = world.chain.provenance(model)
    assert (edge.relation, edge.agent) == ("wasAssociatedWith", heir.address)
    assert edge.activity == "did:nv:9fd301e7f445ab0cb66aa80900d24fe827b4307e7d9070657e5804689f4f49ff"


# --- reading -----------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_none(world):
    nothing, nobody = "0x" + "00" * 32, KeyAccount.create().address
    assert world.chain.agreement(nothing) is None
    assert world.chain.registration(nothing) is None
    assert world.chain.provenance(nothing) == ()
    assert world.chain.agreements_of(nobody) == ()
    assert world.chain.balance(nobody) == 0
    assert not world.chain.may_download(nothing, nobody)


def test_nothing_can_be_done_about_an_agreement_that_is_not_there(world):
    account, nothing = world.buyer, "0x" + "00" * 32
    price = {"did": nothing, "amounts": [1], "receivers": [account.address]}
    for attempt in (
        lambda: world.chain.lock_payment(account, nothing, **price),
        lambda: world.chain.fulfill_compute(account, nothing, did=nothing, consumer=account.address),
        lambda: world.chain.release(account, nothing, **price, consumer=account.address),
        lambda: world.chain.abort_by_timeout(account, nothing),
    ):
        with pytest.raises(NotFound):
            attempt()


def test_nothing_is_sold_under_a_did_that_is_not_there(world):
    with refused():
        world.sale(did="did:nv:" + "00" * 32)


@pytest.mark.parametrize(
    "text", ["", "0x", "did:nv:", "did:nv:" + "0" * 63, "0x" + "g" * 64, "did:op:" + "0" * 64, None, 7]
)
def test_what_is_no_identifier_is_the_callers_mistake(world, text):
    for reader in (world.chain.registration, world.chain.agreement, world.chain.provenance):
        with pytest.raises(InvalidRequest):
            reader(text)


@pytest.mark.parametrize("text", ["", "0x12", "alice", "did:nv:" + "0" * 64, None])
def test_what_is_no_address_is_the_callers_mistake(world, text):
    with pytest.raises(InvalidRequest):
        world.chain.balance(text)
    with pytest.raises(InvalidRequest):
        world.chain.agreements_of(text)


def test_both_spellings_of_an_id_and_any_case_of_an_address_are_the_same(world):
    sale = world.sale()
    assert world.chain.agreement("did:nv:" + sale.id[2:].upper()) == sale.agreement
    assert world.chain.registration("0x" + sale.did[7:]) == world.chain.registration(sale.did)
    assert world.chain.balance(sale.consumer.lower()) == world.chain.balance(sale.consumer)


def test_a_buyers_agreements_are_listed_in_the_order_of_their_making(world):
    buyer = KeyAccount.create().address
    first, second = world.sale(consumer=buyer), world.sale(consumer=buyer)
    assert world.chain.agreements_of(buyer) == (first.id, second.id)


def test_blocks_have_a_number_and_a_duration(world):
    before = world.chain.block_number()
    world.mine(3)
    assert world.chain.block_number() == before + 3
    assert world.chain.block_seconds() == pytest.approx(1.0, abs=0.5)
    assert world.chain.token_decimals() == 18
    assert world.chain.generation == 1


def test_one_account_may_buy_from_several_threads_at_once(world):
    before = world.chain.balance(world.buyer.address)

    def buy(_):
        sale = world.sale()
        sale.lock()
        return sale.agreement.state()

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(buy, range(3))) == ["locked"] * 3
    assert world.chain.balance(world.buyer.address) == before - 3 * 15


# --- the real contracts alone ------------------------------------------------------------------------------------


def test_our_hashes_are_the_contracts_own(real_world):
    sale = real_world.sale()
    chain, agreement = real_world.chain, sale.agreement
    places = [chain.contract_address(n) for n in ("EscrowPaymentCondition", "NeverminedToken")]
    did, number = bytes.fromhex(sale.did[7:]), bytes.fromhex(sale.id[2:])
    amounts, receivers = sale.price["amounts"], sale.price["receivers"]
    lock, compute = (bytes.fromhex(c.id[2:]) for c in (agreement.lock, agreement.compute))
    values = {
        "ComputeExecutionCondition": [did, sale.consumer],
        "LockPaymentCondition": [did, *places, amounts, receivers],
        "EscrowPaymentCondition": [did, amounts, receivers, *places, lock, compute],
    }
    ids = []
    for contract, arguments in values.items():
        value = chain.read(contract, "hashValues", *arguments)
        ids.append("0x" + chain.read(contract, "generateId", number, value).hex())
    assert ids == [agreement.compute.id, agreement.lock.id, agreement.escrow.id]
    owner = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert chain.read("DIDRegistry", "hashDID", bytes.fromhex("11" * 32), owner).hex() == KNOWN_DID[7:]


def test_was_compute_triggered_stays_true_so_it_admits_nobody(real_world):
    did, buyer = real_world.asset(real_world.provider), real_world.buyer.address
    question = ("ComputeExecutionCondition", "wasComputeTriggered", bytes.fromhex(did[7:]), buyer)
    sale = real_world.sale(did=did, timeout=3)
    assert not real_world.chain.read(*question)
    real_world.mine(4)
    assert sale.fulfill() == ABORTED
    assert real_world.chain.read(*question)  # by a fulfilment that came too late
    assert real_world.sale(did=did).agreement.state() == "unpaid"
    assert real_world.chain.read(*question)  # and so for every later agreement, unpaid as it is


def test_an_escrow_that_anybody_aborted_sticks_the_money_for_good(real_world):
    sale = real_world.sale(timeouts=(100, 0, 8))
    sale.lock()
    sale.fulfill()
    real_world.mine(9)
    escrow = bytes.fromhex(sale.agreement.escrow.id[2:])
    real_world.chain.write(real_world.stranger, "EscrowPaymentCondition", "abortByTimeOut", escrow)
    for account in (sale.provider, sale.buyer):
        with refused():
            sale.release(account)
    assert sale.moved == IN_ESCROW


def test_a_stranger_who_takes_our_provenance_id_does_not_keep_us_from_writing(real_world):
    chain, hospital, stranger = real_world.chain, real_world.provider, real_world.stranger
    dataset, junk = real_world.asset(hospital), real_world.asset(stranger)
    did, deed = bytes.fromhex(dataset[7:]), bytes.fromhex(ACTIVITY[7:])
    content = b"used" + did + hospital.address.encode() + deed + hospital.address.encode()
    taken = keccak(content + (0).to_bytes(4))
    chain.write(stranger, "DIDRegistry", "used", taken, bytes.fromhex(junk[7:]), stranger.address, deed, b"", "")
    chain.used(hospital, did=dataset, activity=ACTIVITY)
    assert [e.agent for e in chain.provenance(dataset)] == [hospital.address]
