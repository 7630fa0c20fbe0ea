"""Contracts: put the real Nevermined contracts on a chain and give accounts something to pay with.

Implementations are initialised directly, without proxies: every contract has an empty constructor and one ``initialize``.
All transactions are signed beforehand, addresses follow from nonces, so a network is up in one round trip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import requests
import rlp  # type: ignore[import-untyped]  # it has no stubs
from eth_account import Account as Signer

from nevermined_fl.chain.contracts import CONTRACTS, load_artifact
from nevermined_fl.chain.node import Node
from nevermined_fl.devnet.chain import chain_command
from nevermined_fl.errors import ChainError
from nevermined_fl.keys import KeyAccount, checksum_address, keccak
from nevermined_fl.settings import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from web3.types import TxParams

__all__ = ["chain_command", "deploy", "development_owner", "fund"]

_NOBODY = "0x" + "00" * 20
_CREATION_GAS = 6_000_000
_CALL_GAS = 500_000
_FIRST_SECRET = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # noqa: S105  known to everybody


def development_owner() -> KeyAccount:
    """The first account of every development chain (anvil, hardhat, ours); worth nothing anywhere else."""
    return KeyAccount.from_secret(bytes.fromhex(_FIRST_SECRET))


def deploy(rpc_url: str, owner: KeyAccount, *, metadata_url: str = "", artifacts: str = "mumbai") -> Network:
    """Deploy and initialise the contracts 1.x; ``owner`` pays, governs them and mints tokens.

    Raises:
        ChainError: the node did not answer, or a transaction failed.
    """
    node = Node(rpc_url)
    _steady_clock(node)
    batch = _Batch(node, owner)
    at: dict[str, str] = {}
    for name in CONTRACTS:
        at[name] = batch.create(load_artifact(name, artifacts).linked(at))
    for name, function, arguments in _settings_up(owner.address, at):
        contract = node.web3.eth.contract(abi=list(load_artifact(name, artifacts).abi))
        batch.call(at[name], contract.encode_abi(function, arguments))
    batch.send()
    return Network(
        rpc_url=rpc_url, metadata_url=metadata_url, contracts=at, chain_id=node.chain_id(), artifacts=artifacts
    )


def fund(
    network: Network, owner: KeyAccount, addresses: Sequence[str], *, ether: int = 10**18, tokens: int = 0
) -> None:
    """Give each address ``ether`` wei of ``owner`` and ``tokens`` new tokens in their smallest unit."""
    node = Node(network.rpc_url, chain_id=network.chain_id)
    batch = _Batch(node, owner)
    token = node.web3.eth.contract(abi=list(load_artifact("NeverminedToken", network.artifacts).abi))
    for address in addresses:
        if ether:
            batch.call(address, "0x", value=ether)
        if tokens:
            batch.call(network.contracts["NeverminedToken"], token.encode_abi("mint", [address, tokens]))
    batch.send()


def _steady_clock(node: Node) -> None:
    """Make anvil's blocks a second apart by their own clock, as ours are, however fast transactions make it mine.

    Buyer and provider both measure a block's duration, at different times; a burst must not make them disagree. Other
    nodes do not know the method.
    """
    body = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBlockTimestampInterval", "params": [1]}
    node.ask("clock", lambda: requests.post(node.rpc_url, json=body, timeout=10))


class _Batch:
    """Transactions of one account with nonces in a row, sent in one request."""

    def __init__(self, node: Node, owner: KeyAccount) -> None:
        self._node, self._owner = node, owner
        self._nonce: int = node.ask("nonce", lambda: node.web3.eth.get_transaction_count(owner.address))  # type: ignore[arg-type]
        self._fees = node.fees()
        self._raw: list[str] = []
        self._digests: list[str] = []

    def create(self, code: str) -> str:
        """Add a contract's creation; returns the address that it will have."""
        sender = bytes.fromhex(self._owner.address[2:])
        address = checksum_address(keccak(rlp.encode([sender, self._nonce]))[12:])
        self._add({"data": code, "gas": _CREATION_GAS, "value": 0})
        return address

    def call(self, to: str, data: str, *, value: int = 0) -> None:
        """Add a call or a transfer."""
        self._add({"to": to, "data": data, "gas": _CALL_GAS, "value": value})

    def send(self) -> None:
        """Send them all and see that they succeeded."""
        if not self._raw:
            return
        # Answers are not looked at: a batch that is sent again meets its own nonces. The receipts tell.
        self._request("eth_sendRawTransaction", self._raw)
        node, last = self._node, self._digests[-1]
        node.ask("deployment", lambda: node.web3.eth.wait_for_transaction_receipt(last, poll_latency=0.05))  # type: ignore[arg-type]
        receipts = [a.get("result") for a in self._request("eth_getTransactionReceipt", self._digests)]
        if failed := [n for n, receipt in enumerate(receipts) if not receipt or int(receipt["status"], 16) != 1]:
            raise ChainError(f"transaction {failed[0] + 1} of {len(receipts)} of the deployment failed", reverted=True)

    def _add(self, fields: dict[str, Any]) -> None:
        fixed = {"nonce": self._nonce, "chainId": self._node.chain_id(), **self._fees}
        signed = Signer.sign_transaction(cast("TxParams", fields | fixed), self._owner.secret)
        self._raw.append("0x" + bytes(signed.raw_transaction).hex())
        self._digests.append("0x" + bytes(signed.hash).hex())
        self._nonce += 1

    def _request(self, method: str, values: list[str]) -> list[dict[str, Any]]:
        body = [{"jsonrpc": "2.0", "id": n, "method": method, "params": [value]} for n, value in enumerate(values)]

        def post() -> list[dict[str, Any]]:
            answer = requests.post(self._node.rpc_url, json=body, timeout=60)
            answer.raise_for_status()
            return sorted(answer.json(), key=lambda a: int(a["id"]))

        return self._node.ask(method, post)


def _settings_up(owner: str, at: dict[str, str]) -> list[tuple[str, str, list[Any]]]:
    """Every transaction after the creations, in order: contract, function, arguments."""
    conditions, agreements, registry = at["ConditionStoreManager"], at["AgreementStoreManager"], at["DIDRegistry"]
    lock, escrow = at["LockPaymentCondition"], at["EscrowPaymentCondition"]
    calls: list[tuple[str, str, list[Any]]] = [
        ("NeverminedToken", "initialize", [owner, owner]),
        ("DIDRegistry", "initialize", [owner, _NOBODY, _NOBODY]),
        ("ConditionStoreManager", "initialize", [owner, owner]),
        ("TemplateStoreManager", "initialize", [owner]),
        ("AgreementStoreManager", "initialize", [owner, conditions, at["TemplateStoreManager"], registry]),
        ("LockPaymentCondition", "initialize", [owner, conditions, registry]),
        ("EscrowPaymentCondition", "initialize", [owner, conditions]),
        ("ComputeExecutionCondition", "initialize", [owner, conditions, agreements]),
        ("AccessCondition", "initialize", [owner, conditions, agreements]),
        ("ConditionStoreManager", "delegateCreateRole", [agreements]),
        ("ConditionStoreManager", "grantProxyRole", [escrow]),
        ("LockPaymentCondition", "grantProxyRole", [agreements]),
    ]
    templates = {"EscrowComputeExecutionTemplate": "ComputeExecutionCondition", "AccessTemplate": "AccessCondition"}
    for template, condition in templates.items():
        calls += [
            (template, "initialize", [owner, agreements, registry, at[condition], lock, escrow]),
            ("TemplateStoreManager", "proposeTemplate", [at[template]]),
            ("TemplateStoreManager", "approveTemplate", [at[template]]),
            ("AgreementStoreManager", "grantProxyRole", [at[template]]),
        ]
    return calls
