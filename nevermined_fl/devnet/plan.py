"""Which processes does an embedded network consist of, and where does each listen?"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nevermined_fl.devnet.chain import chain_command
from nevermined_fl.devnet.child import Child
from nevermined_fl.devnet.home import ProviderEntry, State
from nevermined_fl.devnet.ports import free_ports
from nevermined_fl.devnet.processes import start_ticks

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.devnet.home import Home

__all__ = ["Servers", "plan_network", "plan_servers", "python_module"]

_COORDINATOR_PORTS = 40


@dataclass(frozen=True, slots=True)
class Servers:
    """``shared`` is what everybody uses (chain, metadata API); ``providers`` their gateways and launchers."""

    shared: tuple[Child, ...]
    providers: tuple[Child, ...]


def plan_network(home: Home, *, providers: int, rpc_url: str = "") -> State:
    """One compute provider, ``providers`` data providers, and a port for everything; ``rpc_url`` is a chain to use."""
    names = [("compute", "compute"), *((f"provider-{n}", "data") for n in range(1, providers + 1))]
    chain, metadata, *rest = free_ports(2 + 2 * len(names) + _COORDINATOR_PORTS)
    own, coordinators = rest[: 2 * len(names)], rest[2 * len(names) :]
    return State(
        phase="starting",
        pid=os.getpid(),
        ticks=start_ticks(os.getpid()),
        rpc_url=rpc_url or f"http://127.0.0.1:{chain}",
        metadata_url=f"http://127.0.0.1:{metadata}",
        coordinator_ports=(coordinators[0], coordinators[-1]),
        providers=tuple(
            ProviderEntry(name, kind, str(home.provider(name)), gateway, launcher)
            for (name, kind), gateway, launcher in zip(names, own[::2], own[1::2], strict=True)
        ),
    )


def plan_servers(home: Home, state: State, *, embedded_chain: bool) -> Servers:
    """The processes to run; without ``embedded_chain`` somebody else runs the chain."""
    metadata_port = str(urlsplit(state.metadata_url).port)
    metadata = python_module("nevermined_fl.metadata_api", home.root / "metadata", "--port", metadata_port)
    shared = [Child("metadata", metadata, f"{state.metadata_url}/")]
    if embedded_chain:
        command = tuple(chain_command(urlsplit(state.rpc_url).port or 0))
        # The chain lives in its process's memory: started again it would be another one.
        shared.insert(0, Child("chain", command, f"{state.rpc_url}/", restart=False))
    return Servers(tuple(shared), tuple(child for entry in state.providers for child in _of_provider(entry)))


def python_module(name: str, home: Path | str, *arguments: str) -> tuple[str, ...]:
    """Command of one of our servers."""
    return (sys.executable, "-m", name, "--home", str(home), *arguments)


def _of_provider(entry: ProviderEntry) -> tuple[Child, Child]:
    launcher = python_module("nevermined_fl.launcher", entry.home)
    gateway = python_module("gateway_plugin", entry.home)
    return (
        Child(f"{entry.name}-launcher", launcher, f"http://127.0.0.1:{entry.launcher_port}/"),
        Child(f"{entry.name}-gateway", gateway, f"{entry.gateway_url()}/"),
    )
