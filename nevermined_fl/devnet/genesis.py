"""What must be there before providers can serve: contracts on the chain, keys, data folders, and money?

Run by the supervisor as a process of its own, once per network.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl import logs
from nevermined_fl.devnet.contracts import deploy, development_owner, fund
from nevermined_fl.devnet.home import Home
from nevermined_fl.errors import ChainError, NeverminedFLError
from nevermined_fl.keys import load_account, read_password
from nevermined_fl.marketplace.provider_home import create_home, create_key
from nevermined_fl.settings import (
    CoordinatorSettings,
    GatewaySettings,
    LauncherSettings,
    PolicySettings,
    ProviderSettings,
    save_network,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.devnet.home import ProviderEntry, State
    from nevermined_fl.settings import Network

__all__ = ["BUYER_TOKENS", "main"]

logger = logging.getLogger(__name__)

BUYER_TOKENS = 1000
_TOKEN = 10**18
_ETHER = 10**18
# Everybody may buy on a throw-away network, and everything is on loopback; what runs is still approved one by one.
_POLICY = PolicySettings(buyers=("*",), allow_private_targets=True, allow_no_isolation=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nevermined_fl.devnet.genesis``."""
    parser = argparse.ArgumentParser(prog="nevermined_fl.devnet.genesis", description=__doc__)
    parser.add_argument("--home", required=True, type=Path)
    home = Home.at(parser.parse_args(arguments).home)
    logs.configure()
    try:
        _make(home, home.load())
    except NeverminedFLError as error:
        # The supervisor shows the end of this log to the user, who needs no traceback.
        logger.error("%s%s", error.message, f" ({error.hint})" if error.hint else "")  # noqa: TRY400  as said above
        return 1
    return 0


def _make(home: Home, state: State) -> None:
    network = _deploy(state)
    save_network(network, home.network_file)
    create_key(home.data_scientist, "key.json", "password", fast=True)
    for entry in state.providers:
        create_home(_settings(entry, home, state), fast_key=True)
    _fund(network, home, state)
    logger.info("contracts deployed, %d providers and a data scientist funded", len(state.providers))


def _deploy(state: State) -> Network:
    owner = development_owner()
    try:
        return deploy(state.rpc_url, owner, metadata_url=state.metadata_url)
    except ChainError as error:
        hint = f"a devnet needs a development chain, on which {owner.address} has ether"
        raise ChainError(f"the contracts were not deployed on {state.rpc_url}: {error.message}", hint=hint) from error


def _settings(entry: ProviderEntry, home: Home, state: State) -> ProviderSettings:
    first, last = state.coordinator_ports
    return ProviderSettings(
        home=Path(entry.home),
        name=entry.name,
        network=str(home.network_file),
        gateway=GatewaySettings(port=entry.gateway_port),
        launcher=LauncherSettings(port=entry.launcher_port),
        coordinator=CoordinatorSettings(first_port=first, last_port=last),
        policy=_POLICY,
    )


def _fund(network: Network, home: Home, state: State) -> None:
    owner = development_owner()
    buyer = _address(home.data_scientist)
    fund(network, owner, [_address(Path(entry.home)) for entry in state.providers], ether=_ETHER)
    fund(network, owner, [buyer], ether=_ETHER, tokens=BUYER_TOKENS * _TOKEN)


def _address(folder: Path) -> str:
    return load_account(folder / "key.json", read_password(folder / "password")).address


if __name__ == "__main__":
    sys.exit(main())
