"""Through which connections does one key act on a network: chain, metadata API, gateways?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets
from nevermined_fl.chain import connect
from nevermined_fl.errors import NotFound
from nevermined_fl.keys import KeyAccount, load_account, read_password
from nevermined_fl.marketplace.gateway_client import GatewayClient
from nevermined_fl.metadata import HttpMetadata, publisher
from nevermined_fl.settings import Network, load_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from nevermined_fl.assets import Publisher
    from nevermined_fl.ports import Chain, Metadata

__all__ = ["Market", "open_market"]


@dataclass(slots=True)
class Market:
    """A key and what it acts through. ``name`` is what DDOs call the publisher."""

    account: KeyAccount
    chain: Chain
    metadata: Metadata
    metadata_url: str
    name: str = ""
    _gateways: dict[str, GatewayClient] = field(default_factory=dict)

    def gateway(self, url: str) -> GatewayClient:
        """The gateway at ``url``; connections and tokens are kept."""
        if url not in self._gateways:
            self._gateways[url] = GatewayClient(url, self.account)
        return self._gateways[url]

    def gateway_of(self, did: str) -> GatewayClient:
        """The gateway that an asset's DDO names."""
        return self.gateway(assets.gateway_url(self.metadata.resolve(did)))

    def owner(self, did: str) -> str:
        """Address of an asset's owner on chain.

        Raises:
            NotFound: the DID is not registered.
        """
        found = self.chain.registration(did)
        if found is None:
            raise NotFound(f"{did} is not registered on chain", check="did_registered")
        return found.owner

    def publish(self, build: Callable[[Publisher], dict[str, Any]]) -> str:
        """Build a DDO, register its DID and publish it; the DID. What broke off is repeated without harm."""
        ddo = build(publisher(self.account, name=self.name, metadata_url=self.metadata_url))
        did: str = ddo["id"]
        self.chain.register(
            self.account,
            seed=assets.did_seed(ddo),
            checksum=assets.registry_checksum(ddo),
            url=ddo["service"][0]["serviceEndpoint"],
        )
        self.metadata.publish(ddo)
        return did

    def close(self) -> None:
        """Close all connections to gateways."""
        for client in self._gateways.values():
            client.close()
        self._gateways.clear()


def open_market(
    key: KeyAccount | Path | str,
    network: Network | Path | str,
    *,
    password_file: Path | str | None = None,
    name: str = "",
) -> Market:
    """Connect ``key`` (a key file, or an account) to ``network`` (a network.json, or what was read from one).

    The password of a key file is in ``password_file``, in a file ``password`` beside it, or in $NEVERMINED_FL_PASSWORD.
    """
    account = key if isinstance(key, KeyAccount) else _unlock(Path(key), password_file)
    found = network if isinstance(network, Network) else load_network(network)
    return Market(
        account, connect(found), HttpMetadata(found.metadata_url), found.metadata_url, name or account.address
    )


def _unlock(key_file: Path, password_file: Path | str | None) -> KeyAccount:
    beside = key_file.with_name("password")
    return load_account(key_file, read_password(password_file or (beside if beside.is_file() else None)))
