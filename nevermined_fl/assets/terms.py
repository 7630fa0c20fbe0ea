"""Terms: what a compute service costs, how long it may take, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nevermined_fl.assets.document import main_of, service_of
from nevermined_fl.errors import InvalidRequest

__all__ = ["EXECUTE", "Container", "Server", "Terms", "compute_terms"]

EXECUTE = "/api/v1/gateway/services/execute"
_UINT256 = 2**256


@dataclass(frozen=True, slots=True)
class Container:
    """An image that a provider runs; ``checksum`` is ``sha256:<64 hex>`` or empty."""

    image: str
    tag: str = "latest"
    checksum: str = ""

    def values(self) -> dict[str, Any]:
        """As the templates ask for it."""
        return {"image": self.image, "tag": self.tag, "checksum": self.checksum}


@dataclass(frozen=True, slots=True)
class Server:
    """A machine on offer. ``price`` is in the token's smallest unit, ``max_seconds`` how long a job may run."""

    id: str = "1"
    kind: str = "small"
    price: int = 0
    cpu: str = "1"
    gpu: str = "0"
    memory: str = "2gb"
    disk: str = "10gb"
    max_seconds: int = 86_400

    def values(self) -> dict[str, Any]:
        """As the templates ask for it."""
        return {
            "serverId": self.id,
            "serverType": self.kind,
            "price": str(self.price),
            "cpu": self.cpu,
            "gpu": self.gpu,
            "memory": self.memory,
            "disk": self.disk,
            "maxExecutionTime": self.max_seconds,
        }


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a compute service.

    Law: ``compute_terms(build_dataset(…, terms=terms)) == terms`` with ``creator`` and ``endpoint`` filled in.

    ``amounts`` are in the token's smallest unit, one per receiver. ``template`` and ``escrow`` are the addresses of
    EscrowComputeExecutionTemplate and EscrowPaymentCondition. ``timeout_blocks`` is the compute condition's timeout
    that the provider asks for; 0 means none, and so no refund. ``inbound`` says that jobs may accept connections.
    """

    amounts: tuple[int, ...]
    receivers: tuple[str, ...]
    token: str
    template: str
    escrow: str
    timeout_blocks: int
    inbound: bool = False
    containers: tuple[Container, ...] = ()
    servers: tuple[Server, ...] = (Server(),)
    cluster: str = "process"
    provider_type: str = "nevermined-fl"
    creator: str = ""
    endpoint: str = ""

    def price(self) -> int:
        """What the buyer pays in all."""
        return sum(self.amounts)

    def values(self) -> dict[str, Any]:
        """As the templates ask for it."""
        return {
            "amounts": [str(amount) for amount in self.amounts],
            "receivers": list(self.receivers),
            "token": self.token,
            "template": self.template,
            "escrow": self.escrow,
            "timeout": self.timeout_blocks,
            "inbound": self.inbound,
            "containers": [container.values() for container in self.containers],
            "servers": [server.values() for server in self.servers],
            "clusterType": self.cluster,
            "clusterUrl": "",
            "providerType": self.provider_type,
            "providerDescription": "",
            "price": str(self.price()),
        }


def compute_terms(ddo: Any) -> Terms:
    """The terms of a dataset's or compute asset's compute service.

    Raises:
        InvalidRequest: there is none, or it contradicts itself: amounts, receivers, token, timeout or gateway differ
            between the places that state them, or the price is not the sum of the amounts.
    """
    asset = main_of(ddo, "dataset", "compute")
    service = service_of(ddo, "compute")
    main = service["attributes"]["main"]
    conditions = service["attributes"]["serviceAgreementTemplate"]["conditions"]
    _check_agreement(main, conditions)
    terms = _read(service, main, conditions)
    if len(terms.amounts) != len(terms.receivers):
        raise _contradiction(f"{len(terms.amounts)} amounts for {len(terms.receivers)} receivers")
    if any(amount >= _UINT256 for amount in (*terms.amounts, terms.price())):
        raise _contradiction("an amount has more than 256 bits")
    if {main["price"], asset["price"]} != {str(terms.price())}:
        raise _contradiction(f"the price should be the sum of the amounts, {terms.price()}")
    if service["serviceEndpoint"] != asset["gateway"] + EXECUTE:
        raise _contradiction("serviceEndpoint should be the gateway's execute")
    return terms


def _check_agreement(main: dict[str, Any], conditions: list[dict[str, Any]]) -> None:
    """The conditions must state what main states."""
    if conditions[1]["timeout"] != main["timeout"]:
        raise _contradiction("timeout differs between main and the execCompute condition")
    for condition in conditions:
        for parameter in condition["parameters"]:
            stated = main.get(parameter["name"])
            if stated is not None and parameter.get("value") != stated:
                raise _contradiction(f"{parameter['name']} differs between main and {condition['name']}")


def _read(service: dict[str, Any], main: dict[str, Any], conditions: list[dict[str, Any]]) -> Terms:
    environment = main["provider"]["environment"]
    return Terms(
        amounts=tuple(int(amount) for amount in main["_amounts"]),
        receivers=tuple(main["_receivers"]),
        token=main["_tokenAddress"],
        template=service["templateId"],
        escrow=conditions[0]["parameters"][1]["value"],
        timeout_blocks=main["timeout"],
        inbound=environment["inbound"],
        containers=tuple(_container(c) for c in environment["supportedContainers"]),
        servers=tuple(_server(s) for s in environment["supportedServers"]),
        cluster=environment["cluster"]["type"],
        provider_type=main["provider"]["type"],
        creator=main["creator"],
        endpoint=service["serviceEndpoint"],
    )


def _container(found: dict[str, Any]) -> Container:
    return Container(found["image"], found["tag"], found["checksum"])


def _server(found: dict[str, Any]) -> Server:
    return Server(
        id=found["serverId"],
        kind=found["serverType"],
        price=int(found["price"]),
        cpu=found["cpu"],
        gpu=found["gpu"],
        memory=found["memory"],
        disk=found["disk"],
        max_seconds=found["maxExecutionTime"],
    )


def _contradiction(message: str) -> InvalidRequest:
    return InvalidRequest(f"compute service: {message}", check="compute_terms")
