"""Node: ask a chain's node until it answers, and send it transactions.

Rule 1: what did not arrive is asked again until patience runs out; what the contract refused is never asked again.
Rule 2: an account sends one transaction after the other. Its nonce is read anew for each, for other processes use the
account as well; who lost that race signs again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeVar, cast

import requests
from eth_account import Account as Signer
from web3 import HTTPProvider, Web3
from web3.exceptions import (
    BadFunctionCallOutput,
    BadResponseFormat,
    ContractLogicError,
    TransactionNotFound,
    Web3Exception,
    Web3RPCError,
    Web3ValidationError,
)

from nevermined_fl import recursion
from nevermined_fl.errors import ChainError, LocalProtocolError
from nevermined_fl.keys import KeyAccount

recursion.bound()

if TYPE_CHECKING:
    from collections.abc import Callable

    from eth_typing import ChecksumAddress
    from web3.contract.contract import ContractFunction
    from web3.types import TxParams, TxReceipt

    from nevermined_fl.ports import Account

__all__ = ["Node"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_UNANSWERED = (requests.RequestException, ConnectionError, TimeoutError, BadResponseFormat)
_NONCE_TAKEN = ("nonce too low", "nonce too high", "replacement transaction underpriced", "invalid transaction nonce")
_NONCE_RACES = 20
_MINED_PATIENCE = 300.0
_LOCKS: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
"""One per account, for all nodes of this process."""


class Node:
    """A chain's JSON-RPC node. Safe for several threads.

    Args:
        rpc_url: ``http://host:port``.
        chain_id: refuse to sign for a node with another one; 0 takes the node's.
        patience: seconds to go on asking for an answer that does not come.
        timeout: seconds for one answer.
        proxy: HTTP proxy on the way, ``http://host:port``; without one the environment's.
    """

    def __init__(
        self, rpc_url: str, *, chain_id: int = 0, patience: float = 30.0, timeout: float = 10.0, proxy: str = ""
    ) -> None:
        options: dict[str, Any] = {"timeout": timeout}
        if proxy:
            options["proxies"] = {"http": proxy, "https": proxy}
        provider = HTTPProvider(rpc_url, request_kwargs=options, exception_retry_configuration=None)
        # No middleware: it would name accounts, guess gas and retry, all of which is done here.
        self.web3 = Web3(provider, middleware=[])
        self.rpc_url = rpc_url
        self._expected_chain_id = chain_id
        self._chain_id = 0
        self._patience = patience

    def exclusive(self, address: str) -> threading.RLock:
        """Held while an account sends: take it around transactions that belong together."""
        return _LOCKS[address]

    def ask(self, what: str, question: Callable[[], T]) -> T:
        """The answer, however often it must be asked for.

        Raises:
            ChainError: no answer within patience, or an error for an answer; ``what`` is in the message.
        """
        end, pause = time.monotonic() + self._patience, 0.05
        while True:
            try:
                return question()
            except _UNANSWERED as error:
                if time.monotonic() + pause > end:
                    raise self._silent(what, error) from error
                logger.debug("%s: %s, asking again", what, type(error).__name__)
            except Web3Exception as error:
                raise _refusal(what, error) from error
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def read(self, what: str, function: ContractFunction) -> Any:
        """Call a view."""
        return self.ask(what, function.call)

    def transact(self, account: Account, what: str, function: ContractFunction) -> TxReceipt:
        """Send a transaction and wait until it is mined.

        Raises:
            ChainError: with ``reverted`` when the contract refuses, mostly before anything was sent.
        """
        if not isinstance(account, KeyAccount):
            raise LocalProtocolError(f"{type(account).__name__} cannot sign transactions")
        with self.exclusive(account.address):
            digest = self._send_signed(account, what, function)
            receipt = self._await(what, digest)
        if receipt["status"] != 1:
            # It passed when its gas was estimated; so call it again to learn why it does not now.
            self.ask(what, lambda: function.call({"from": cast("ChecksumAddress", account.address)}))
            raise ChainError(f"{what}: the transaction was reverted", reverted=True)
        return receipt

    def chain_id(self) -> int:
        """The chain's id, checked against the expected one."""
        if not self._chain_id:
            found = self.ask("chain id", lambda: self.web3.eth.chain_id)
            if self._expected_chain_id not in {0, found}:
                raise ChainError(
                    f"{self.rpc_url} is chain {found}, not {self._expected_chain_id}",
                    hint="use the network.json that belongs to this node",
                )
            self._chain_id = found
        return self._chain_id

    def fees(self) -> dict[str, int]:
        """Fee fields of a transaction: the node's tip over a base fee that may double before it is mined."""
        block = self.ask("fees", lambda: self.web3.eth.get_block("latest"))
        base = block.get("baseFeePerGas")
        if base is None:
            return {"gasPrice": self.ask("fees", lambda: self.web3.eth.gas_price)}
        tip = self.ask("fees", lambda: self.web3.eth.max_priority_fee)
        return {"maxFeePerGas": 2 * base + tip, "maxPriorityFeePerGas": tip}

    def _send_signed(self, account: KeyAccount, what: str, function: ContractFunction) -> bytes:
        sender = cast("ChecksumAddress", account.address)
        gas = self.ask(what, lambda: function.estimate_gas({"from": sender}))
        for _ in range(_NONCE_RACES):
            nonce = self.ask(what, lambda: self.web3.eth.get_transaction_count(sender, "pending"))
            terms = {"value": 0, "chainId": self.chain_id(), "nonce": nonce, "gas": gas + gas // 5, **self.fees()}
            transaction = function.build_transaction(cast("TxParams", terms))
            signed = Signer.sign_transaction(transaction, account.secret)
            if self._submit(what, bytes(signed.raw_transaction), bytes(signed.hash)):
                return bytes(signed.hash)
        raise ChainError(f"{what}: other processes keep taking the nonces of {account.address}")

    def _submit(self, what: str, raw: bytes, digest: bytes) -> bool:
        """Send; False when another transaction took the nonce. One that was not answered for is sent again as it is."""

        def send() -> bool:
            try:
                self.web3.eth.send_raw_transaction(raw)
            except Web3RPCError as error:
                words = str(error).lower()
                if "already known" in words or "already imported" in words:
                    return True
                if any(word in words for word in _NONCE_TAKEN):
                    # Perhaps by this very transaction, whose answer got lost.
                    return self._receipt(digest) is not None
                raise
            return True

        return self.ask(what, send)

    def _await(self, what: str, digest: bytes) -> TxReceipt:
        end, pause = time.monotonic() + _MINED_PATIENCE, 0.02
        while (receipt := self.ask(what, lambda: self._receipt(digest))) is None:
            if time.monotonic() > end:
                raise ChainError(f"{what}: transaction 0x{digest.hex()} was not mined in {_MINED_PATIENCE:.0f} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        return receipt

    def _receipt(self, digest: bytes) -> TxReceipt | None:
        try:
            return self.web3.eth.get_transaction_receipt(digest)  # type: ignore[arg-type]  # bytes are as good as HexBytes
        except TransactionNotFound:
            return None

    def _silent(self, what: str, error: BaseException) -> ChainError:
        return ChainError(
            f"{what}: {self.rpc_url} did not answer for {self._patience:.0f} s ({type(error).__name__})",
            hint="is the node running?",
        )


def _refusal(what: str, error: Web3Exception) -> ChainError:
    """An answer that is an error. Nodes word a revert in several ways, eth-tester without a code of its own."""
    words = str(getattr(error, "message", None) or error)
    if isinstance(error, ContractLogicError) or "revert" in words.lower() or "TransactionFailed" in words:
        return ChainError(f"{what}: {words}", reverted=True)
    if isinstance(error, BadFunctionCallOutput):
        return ChainError(f"{what}: no such contract there", hint="use the network.json that belongs to this node")
    if isinstance(error, Web3ValidationError):
        raise LocalProtocolError(f"{what}: {words}") from error
    if "insufficient funds" in words.lower():
        return ChainError(f"{what}: {words}", hint="the account needs ether for gas")
    return ChainError(f"{what}: {words}")
