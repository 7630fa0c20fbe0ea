"""A small market on a memory chain: a hospital's dataset, a clinic's, a cloud's compute service, a buyer's workflows."""

from copy import copy, deepcopy
from functools import cache

from nevermined_fl import assets
from nevermined_fl.assets.integrity import seal
from nevermined_fl.chain.memory import MemoryChain
from nevermined_fl.keys import KeyAccount
from nevermined_fl.metadata import MemoryMetadata, publisher

HOSPITAL, CLINIC, CLOUD, BUYER, STRANGER = (KeyAccount.from_secret(bytes([n]) * 32) for n in range(1, 6))
NOW = 1_769_860_800.0
MARGIN = 10
TIMEOUT = 400
# 30 s of selection, then 2 rounds of 60 s training and 60 s evaluation.
LONGEST = 30 + 2 * 2 * 60
PARAMETERS = {
    "engine": "native",
    "minParticipants": 2,
    "participantsRatio": 1.0,
    "rounds": 2,
    "selectionTimeout": 30,
    "roundTimeout": 60,
    "initialModel": "sha256:" + "5a" * 32,
    "schema": [{"name": "weights", "dtype": "F32", "shape": [3]}],
}
IMAGE = assets.Container("nevermined-fl/participant")
FILE = assets.FileEntry("patients.csv", "text/csv", 4711, "ab" * 32)
SCHEMA = assets.Schema((assets.Column("age", "int64"),), 600)


class Edited:
    """A metadata API that edits what it was given, or has lost it."""

    def __init__(self, honest, did, edit):
        self._honest, self._did, self._edit = honest, did, edit

    def resolve(self, did):
        ddo = deepcopy(self._honest.resolve(did))
        return self._edit(ddo) if did == self._did else ddo


class Lax:
    """A metadata API that also holds a DDO which no honest one takes."""

    def __init__(self, honest, ddo):
        self._honest, self._ddo = honest, ddo

    def resolve(self, did):
        return deepcopy(self._ddo) if did == self._ddo["id"] else self._honest.resolve(did)


def funded_chain():
    chain = MemoryChain()
    for account in (BUYER, STRANGER):
        chain.fund(account.address, 1000)
    return chain


@cache
def first_market():
    return Market()


def open_market():
    """A market of one's own. Sealing DDOs takes long, so all start as copies of one."""
    first = first_market()
    market = copy(first)
    market.chain, market.metadata, market.registered = funded_chain(), deepcopy(first.metadata), []
    for entry in first.registered:
        market.chain.register(**entry)
    return market


class Market:
    """Everybody has tokens; the buyer has published a session and one workflow for both datasets."""

    def __init__(self):
        self.chain = funded_chain()
        self.metadata = MemoryMetadata()
        self.gateway_url = "http://127.0.0.1:8030"
        self.registered = []
        self._made = 0
        self.dataset = self.publish_dataset(HOSPITAL, (12, 3))
        self.other_dataset = self.publish_dataset(CLINIC, (20,))
        self.compute = self.publish_compute()
        self.algorithm = self.publish(BUYER, self.algorithm_ddo())
        self.session = self.publish_session()
        self.workflow = self.publish_workflow()

    def about(self):
        """Of another time than all others, so that each asset has a DID of its own."""
        self._made += 1
        return assets.About(f"asset {self._made}", NOW + self._made)

    def publisher(self, account):
        return publisher(account, name="somebody", metadata_url="http://127.0.0.1:5000")

    def terms(self, account, amounts=(15,), **changes):
        receivers = (account.address, CLOUD.address)[: len(amounts)]
        addresses = {
            "token": self.chain.contract_address("NeverminedToken"),
            "template": self.chain.contract_address("EscrowComputeExecutionTemplate"),
            "escrow": self.chain.contract_address("EscrowPaymentCondition"),
        }
        values = {"amounts": amounts, "receivers": receivers, "timeout_blocks": TIMEOUT, **addresses} | changes
        return assets.Terms(**values)

    def publish(self, account, ddo, *, checksum=None, providers=()):
        self.register(account, ddo, checksum=checksum, providers=providers)
        self.metadata.publish(ddo)
        return ddo["id"]

    def register(self, account, ddo, *, checksum=None, providers=()):
        self.registered.append(
            {
                "account": account,
                "seed": assets.did_seed(ddo),
                "checksum": checksum or assets.registry_checksum(ddo),
                "url": ddo["service"][0]["serviceEndpoint"],
                "providers": providers,
            }
        )
        self.chain.register(**self.registered[-1])

    def publish_dataset(self, account, amounts=(15,), *, providers=(), checksum=None, **changes):
        ddo = assets.build_dataset(
            self.publisher(account),
            self.about(),
            gateway_url=self.gateway_url,
            terms=self.terms(account, amounts, **changes),
            files=[FILE],
            schema=SCHEMA,
        )
        return self.publish(account, ddo, providers=providers, checksum=checksum)

    def publish_compute(self, account=CLOUD, *, inbound=True):
        terms = self.terms(account, (7,), inbound=inbound)
        ddo = assets.build_compute(self.publisher(account), self.about(), gateway_url=self.gateway_url, terms=terms)
        return self.publish(account, ddo)

    def algorithm_ddo(self, account=BUYER, files=None):
        files = files or [
            assets.FileEntry("algorithm.py", "text/x-python", 11, "c1" * 32),
            assets.FileEntry("initial.safetensors", "application/octet-stream", 12, "c2" * 32),
        ]
        publisher = self.publisher(account)
        return assets.build_algorithm(
            publisher, self.about(), gateway_url=self.gateway_url, files=files, container=IMAGE
        )

    def publish_session(self, account=BUYER, *, datasets=None, compute=None, checksum=None, **parameters):
        ddo = assets.build_session(
            self.publisher(account),
            self.about(),
            datasets=datasets or [self.dataset, self.other_dataset],
            compute=compute or self.compute,
            parameters=PARAMETERS | parameters,
            container=IMAGE,
        )
        return self.publish(account, ddo, checksum=checksum)

    def publish_workflow(self, account=BUYER, *, session=None, datasets=None, checksum=None):
        ddo = assets.build_workflow(
            self.publisher(account),
            self.about(),
            session=session or self.session,
            datasets=datasets or [self.dataset, self.other_dataset],
            algorithm=self.algorithm,
            container=IMAGE,
        )
        return self.publish(account, ddo, checksum=checksum)

    def resealed(self, account, did, edit):
        """A DDO as its owner may register it, edited and then sealed, and a metadata API that takes anything."""
        ddo = deepcopy(self.metadata.resolve(did))
        for field in ("id", "publicKey", "authentication", "proof"):
            ddo.pop(field)
        ddo["service"][0]["serviceEndpoint"] = "http://127.0.0.1:5000/api/v1/metadata/assets/ddo"
        edit(ddo["service"][0]["attributes"]["main"])
        sealed = seal(ddo, self.publisher(account))
        self.register(account, sealed)
        return sealed["id"], Lax(self.metadata, sealed)

    def order(self, did, *, buyer=BUYER, consumer=None, pay=True, timeout=TIMEOUT, **changes):
        terms = assets.compute_terms(self.metadata.resolve(did))
        price = {"amounts": terms.amounts, "receivers": terms.receivers} | {
            name: changes.pop(name) for name in ("amounts", "receivers") if name in changes
        }
        agreement = self.chain.create_agreement(buyer, did=did, timeout=timeout, consumer=consumer, **price, **changes)
        if pay:
            self.chain.lock_payment(buyer, agreement, did=did, **price)
        return agreement
