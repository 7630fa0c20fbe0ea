"""Deployment: the contracts of a network by name, to be read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nevermined_fl.chain.contracts import load_artifact
from nevermined_fl.chain.node import Node
from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from web3.contract.contract import Contract, ContractFunction
    from web3.types import TxReceipt

    from nevermined_fl.ports import Account
    from nevermined_fl.settings import Network

__all__ = ["Deployment"]


class Deployment:
    """The contracts of a network.

    Args:
        network: where they are.
        patience: as of Node.
        proxy: as of Node.
    """

    def __init__(self, network: Network, *, patience: float = 30.0, proxy: str = "") -> None:
        self._network = network
        self._contracts: dict[str, Contract] = {}
        self.node = Node(network.rpc_url, chain_id=network.chain_id, patience=patience, proxy=proxy)

    def contract_address(self, name: str) -> str:
        """Address of a contract by its Nevermined name."""
        if name not in self._network.contracts:
            raise SettingsError(f"the network has no contract {name}", hint="add it to network.json")
        return self._network.contracts[name]

    def read(self, contract: str, function: str, *arguments: Any) -> Any:
        """Call a view; several results come as a dict by their names in the ABI."""
        call = self.function(contract, function, *arguments)
        result = self.node.read(f"{contract}.{function}", call)
        outputs = call.abi.get("outputs", [])
        return result if len(outputs) == 1 else {o["name"]: v for o, v in zip(outputs, result, strict=True)}

    def write(self, account: Account, contract: str, function: str, *arguments: Any) -> TxReceipt:
        """Send a transaction and wait for it; ``function`` may be a signature, where names are overloaded."""
        what = f"{contract}.{function.partition('(')[0]}"
        return self.node.transact(account, what, self.function(contract, function, *arguments))

    def logs(self, contract: str, topics: Sequence[str | list[str] | None]) -> list[dict[str, Any]]:
        """Decoded logs of a contract, oldest first: ``event``, ``args`` and ``blockNumber``."""
        held = self.contract(contract)
        query = {"address": held.address, "fromBlock": 0, "toBlock": "latest", "topics": list(topics)}
        found = self.node.ask(f"{contract} logs", lambda: self.node.web3.eth.get_logs(query))  # type: ignore[arg-type]
        names = [entry["name"] for entry in held.abi if entry["type"] == "event"]
        events = {self.topic(contract, name): held.events[name]() for name in names}
        return [dict(events["0x" + bytes(log["topics"][0]).hex()].process_log(log)) for log in found]

    def topic(self, contract: str, event: str) -> str:
        """The first topic of an event's logs."""
        return str(self.contract(contract).events[event]().topic)

    def function(self, contract: str, function: str, *arguments: Any) -> ContractFunction:
        """A function with its arguments."""
        held = self.contract(contract)
        found = held.get_function_by_signature(function) if "(" in function else held.functions[function]
        return found(*arguments)

    def contract(self, name: str) -> Contract:
        """A contract as web3 has it, made on first use."""
        if name not in self._contracts:
            abi = load_artifact(name, self._network.artifacts).abi
            address = self.contract_address(name)
            self._contracts[name] = self.node.web3.eth.contract(address=address, abi=list(abi))  # type: ignore[call-overload]
        return self._contracts[name]
