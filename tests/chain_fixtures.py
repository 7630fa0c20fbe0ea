"""A real chain with the real contracts for a whole test run, and accounts with something to spend on it.

tests/conftest.py imports ``chain_network`` and ``funded``, so that all modules share one chain (mark their tests
``xdist_group("chain")``, or each worker starts its own). The chain mines transactions alone (and on request), so that
tests decide exactly how many blocks pass.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from nevermined_fl.keys import KeyAccount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nevermined_fl.settings import Network

__all__ = ["chain_network", "chain_process", "free_port", "funded", "rpc"]

TOKENS = 1000


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def rpc(url: str, method: str, *parameters, timeout: float = 30):
    """The whole answer to one JSON-RPC request."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(parameters)}
    import requests  # noqa: PLC0415  the core's tests run without it

    return requests.post(url, json=body, timeout=timeout).json()


@contextmanager
def chain_process(command: list[str], port: int) -> Iterator[tuple[subprocess.Popen, str]]:
    """A node until the end of the block; comes back when it answers."""
    from nevermined_fl.chain.node import Node  # noqa: PLC0415  web3 takes 3 s, and xdist imports this everywhere

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        Node(url, patience=60).chain_id()
        yield process, url
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="session")
def chain_network() -> Iterator[Network]:
    """One deployment for all tests of this process."""
    from nevermined_fl.devnet.contracts import chain_command, deploy, development_owner  # noqa: PLC0415  as above

    port = free_port()
    with chain_process(chain_command(port, block_time=0, anvil=False), port) as (_, url):
        yield deploy(url, development_owner())


@pytest.fixture(scope="session")
def funded(chain_network: Network) -> Callable[[], KeyAccount]:
    """Makes accounts that own ether for gas and 1000 tokens."""
    from nevermined_fl.devnet.contracts import development_owner, fund  # noqa: PLC0415  as above

    def make() -> KeyAccount:
        account = KeyAccount.create()
        fund(chain_network, development_owner(), [account.address], tokens=TOKENS)
        return account

    return make
