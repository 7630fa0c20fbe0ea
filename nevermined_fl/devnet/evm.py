"""EVM: py-evm behind the methods of Ethereum's JSON-RPC, without any HTTP.

Rule 1: one transaction is one block, mined when it comes; so a receipt is there before the answer is.
Rule 2: receipts, transactions and logs are kept as they are mined. eth-tester would look for them block by block, and an
idle chain grows by a block a second.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from eth import EVM_RECURSION_LIMIT
from eth.exceptions import Revert
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_tester.backends.pyevm.main import PyEVMBackend
from eth_tester.exceptions import BlockNotFound
from eth_utils.exceptions import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CHAIN_ID", "METHODS", "MNEMONIC", "Evm", "RpcError"]

CHAIN_ID = 31337
"""As anvil's, and as unknown to everybody."""
MNEMONIC = "test test test test test test test test test test test junk"
"""As anvil's: ten accounts full of ether, and everybody knows their keys."""

_ERROR_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_NO_BLOOM = "0x" + "00" * 256
_TIP = 10**9
_RENAMED = {"coinbase": "miner", "data": "input"}
_HIDDEN = frozenset({"state_root", "prev_randao"})


class RpcError(Exception):
    """An error object of JSON-RPC.

    Args:
        code: 3 for a revert, -32602 for bad parameters, -32000 for what the chain refuses.
        message: as geth words it where clients look at words.
        data: what the contract reverted with.
    """

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The ``error`` member of an answer."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        return body | ({"data": self.data} if self.data is not None else {})


class Evm:
    """A chain of our own. Not for several threads at once."""

    def __init__(self) -> None:
        # Contracts may call each other 1024 deep; whoever forked us may have bounded that.
        sys.setrecursionlimit(max(EVM_RECURSION_LIMIT, sys.getrecursionlimit()))
        self._backend = PyEVMBackend.from_mnemonic(MNEMONIC, hd_path="m/44'/60'/0'/0")
        self._chain = self._backend.chain
        # The class is made anew for each backend, so this is ours alone.
        type(self._chain).chain_id = CHAIN_ID
        self._transactions: dict[str, dict[str, Any]] = {}
        self._receipts: dict[str, dict[str, Any]] = {}
        self._logs: list[dict[str, Any]] = []
        self.mined = time.monotonic()
        """When the newest block was mined, by the monotonic clock."""

    def mine(self) -> None:
        """Add a block with what is pending, mostly nothing."""
        self._backend.mine_blocks(1)
        self.mined = time.monotonic()

    def height(self) -> int:
        """Number of the newest block."""
        return int(self._chain.get_block().number) - 1

    # --- the methods, by their JSON-RPC parameters ---

    def mine_some(self, count: Any = "0x1") -> str:
        """anvil_mine: as many blocks as one wants, unlike evm_mine."""
        for _ in range(_number(count)):
            self.mine()
        return hex(self.height())

    def accounts(self) -> list[str]:
        """eth_accounts: rich, but not unlocked; clients sign for themselves."""
        return [_hex(address) for address in self._backend.get_accounts()]

    def balance(self, address: str, tag: Any = "latest") -> str:
        """eth_getBalance."""
        return hex(self._backend.get_balance(_bytes(address), _tag(tag)))

    def code(self, address: str, tag: Any = "latest") -> str:
        """eth_getCode."""
        return _hex(self._backend.get_code(_bytes(address), _tag(tag)))

    def storage(self, address: str, slot: str, tag: Any = "latest") -> str:
        """eth_getStorageAt."""
        return f"0x{self._backend.get_storage(_bytes(address), _number(slot), _tag(tag)):064x}"

    def nonce(self, address: str, tag: Any = "latest") -> str:
        """eth_getTransactionCount."""
        return hex(self._backend.get_nonce(_bytes(address), _tag(tag)))

    def gas_price(self) -> str:
        """eth_gasPrice."""
        return hex(self._backend.get_base_fee() + _TIP)

    def block_by_number(self, tag: Any, full: Any = False) -> dict[str, Any] | None:  # noqa: FBT002  the RPC's own
        """eth_getBlockByNumber."""
        try:
            return _block(self._backend.get_block_by_number(_tag(tag), full_transaction=bool(full)))
        except BlockNotFound:
            return None

    def block_by_hash(self, digest: str, full: Any = False) -> dict[str, Any] | None:  # noqa: FBT002  the RPC's own
        """eth_getBlockByHash."""
        try:
            return _block(self._backend.get_block_by_hash(_bytes(digest), full_transaction=bool(full)))
        except BlockNotFound:
            return None

    def transaction(self, digest: str) -> dict[str, Any] | None:
        """eth_getTransactionByHash."""
        return self._transactions.get(digest.lower())

    def receipt(self, digest: str) -> dict[str, Any] | None:
        """eth_getTransactionReceipt."""
        return self._receipts.get(digest.lower())

    def logs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        """eth_getLogs."""
        low, high = self._bound(query.get("fromBlock", "latest")), self._bound(query.get("toBlock", "latest"))
        addresses = {a.lower() for a in _several(query.get("address"))}
        topics = [{t.lower() for t in _several(alternatives)} for alternatives in query.get("topics") or []]
        return [
            log
            for log in self._logs
            if low <= int(log["blockNumber"], 16) <= high
            and (not addresses or log["address"] in addresses)
            and _topics_match(log["topics"], topics)
        ]

    def call(self, transaction: dict[str, Any], tag: Any = "latest", *_overrides: Any) -> str:
        """eth_call: on the newest state, whatever the block asked for."""
        return _hex(self._run(transaction).output)

    def estimate(self, transaction: dict[str, Any], *_: Any) -> str:
        """eth_estimateGas: one run and a quarter more, for a call inside gets only 63/64 of what is left."""
        data = _bytes(transaction.get("data") or transaction.get("input") or "0x")
        zeros = data.count(0)
        tokens = zeros + 4 * (len(data) - zeros)  # EIP-7623
        if not transaction.get("to"):
            return hex(int(self._backend.estimate_gas(self._creation(transaction, data)) * 1.25))
        used = 21000 + 4 * tokens + self._run(transaction).get_gas_used()
        return hex(max(int(used * 1.25), 21000 + 10 * tokens))

    def send_raw(self, raw: str) -> str:
        """eth_sendRawTransaction: mined when this returns."""
        try:
            digest = self._backend.send_raw_transaction(_bytes(raw))
        except ValidationError as error:
            raise RpcError(-32000, _refusal(str(error))) from error
        except RpcError:
            raise
        except Exception as error:  # whatever a decoder makes of bytes that are no transaction
            raise RpcError(-32602, f"not a transaction: {type(error).__name__}") from error
        self.mine()
        self._keep(digest)
        return _hex(digest)

    def _keep(self, digest: bytes) -> None:
        name = _hex(digest)
        receipt = _json(self._backend.get_transaction_receipt(digest))
        for log in receipt["logs"]:
            log.pop("type")
            log["data"] = log.pop("input")
            log["removed"] = False
        self._receipts[name] = receipt | {"logsBloom": _NO_BLOOM, "to": _nobody(receipt["to"])}
        self._logs.extend(receipt["logs"])
        found = _json(self._backend.get_transaction_by_hash(digest))
        self._transactions[name] = found | {"to": _nobody(found["to"])}

    def _run(self, transaction: dict[str, Any]) -> Any:
        """Execute a call and forget it; no fee, no nonce, no balance is asked for."""
        to, sender = _bytes(transaction["to"]), _bytes(transaction.get("from") or "0x" + "00" * 20)
        vm = self._chain.get_vm()
        computation = vm.execute_bytecode(
            origin=sender,
            gas_price=0,
            gas=_number(transaction["gas"]) if transaction.get("gas") else self._chain.get_block().header.gas_limit,
            to=to,
            sender=sender,
            value=_number(transaction.get("value") or "0x0"),
            data=_bytes(transaction.get("data") or transaction.get("input") or "0x"),
            code=vm.state.get_code(to),
        )
        if computation.is_error:
            raise _reverted(computation.error)
        return computation

    def _creation(self, transaction: dict[str, Any], data: bytes) -> dict[str, Any]:
        sender = _bytes(transaction.get("from") or "0x" + "00" * 20)
        return {"from": sender, "to": b"", "data": data, "value": _number(transaction.get("value") or "0x0")}

    def _bound(self, tag: Any) -> int:
        tag = _tag(tag)
        if isinstance(tag, int):
            return tag
        return 0 if tag == "earliest" else self.height()


METHODS: dict[str, Callable[..., Any]] = {
    "anvil_mine": Evm.mine_some,
    "eth_accounts": Evm.accounts,
    "eth_blockNumber": lambda evm: hex(evm.height()),
    "eth_call": Evm.call,
    "eth_chainId": lambda _: hex(CHAIN_ID),
    "eth_estimateGas": Evm.estimate,
    "eth_gasPrice": Evm.gas_price,
    "eth_getBalance": Evm.balance,
    "eth_getBlockByHash": Evm.block_by_hash,
    "eth_getBlockByNumber": Evm.block_by_number,
    "eth_getCode": Evm.code,
    "eth_getLogs": Evm.logs,
    "eth_getStorageAt": Evm.storage,
    "eth_getTransactionByHash": Evm.transaction,
    "eth_getTransactionCount": Evm.nonce,
    "eth_getTransactionReceipt": Evm.receipt,
    "eth_maxPriorityFeePerGas": lambda _: hex(_TIP),
    "eth_sendRawTransaction": Evm.send_raw,
    "eth_syncing": lambda _: False,
    "net_listening": lambda _: True,
    "net_version": lambda _: str(CHAIN_ID),
    "web3_clientVersion": lambda _: "nevermined-fl/py-evm",
}


def _reverted(error: Exception) -> RpcError:
    if not isinstance(error, Revert) or not error.args or not isinstance(error.args[0], bytes):
        return RpcError(-32000, f"execution failed: {type(error).__name__}")
    data = error.args[0]
    try:
        reason = ": " + decode(["string"], data[4:])[0] if data.startswith(_ERROR_SELECTOR) else ""
    except (DecodingError, UnicodeDecodeError):
        reason = ""
    return RpcError(3, f"execution reverted{reason}", _hex(data))


def _refusal(message: str) -> str:
    """py-evm's words for a refused transaction in geth's, which clients look for."""
    words = message.lower()
    if "nonce" not in words:
        return f"insufficient funds: {message}" if "balance" in words else message
    numbers = [int(w) for w in words.replace(",", " ").split() if w.isdigit()]
    return "nonce too high" if len(numbers) == 2 and numbers[1] > numbers[0] else "nonce too low"


def _topics_match(found: list[str], wanted: list[set[str]]) -> bool:
    if len(wanted) > len(found):
        return False
    return all(not choice or topic in choice for topic, choice in zip(found, wanted, strict=False))


def _several(value: Any) -> Iterable[str]:
    if value is None:
        return ()
    return [value] if isinstance(value, str) else value


def _tag(tag: Any) -> Any:
    if isinstance(tag, str) and tag.startswith("0x"):
        return _number(tag)
    # Nothing is ever pending here.
    found = "latest" if tag is None or tag == "pending" else tag
    if found not in {"latest", "earliest", "safe", "finalized"}:
        raise ValueError(f"no block is called {tag!r:.20}")
    return found


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int(value, 16)


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _nobody(address: str) -> str | None:
    return None if address == "0x" else address


def _block(block: dict[str, Any]) -> dict[str, Any]:
    found = _json(block)
    found["extraData"] = "0x"
    return {**found, "logsBloom": _NO_BLOOM}


def _json(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, bytes | bytearray):
        return _hex(bytes(value))
    if isinstance(value, dict):
        return {_camel(k): _json(v) for k, v in value.items() if k not in _HIDDEN}
    return [_json(v) for v in value]


def _camel(name: str) -> str:
    if name in _RENAMED:
        return _RENAMED[name]
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
