"""Where an embedded network keeps its things, and how it is doing: one folder, one state file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nevermined_fl.devnet.processes import alive
from nevermined_fl.errors import SettingsError
from nevermined_fl.files import write_json

__all__ = ["DEFAULT_HOME", "Home", "ProcessEntry", "ProviderEntry", "State"]

DEFAULT_HOME = Path(".nevermined-fl/devnet")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process of the network: ``url`` is where it answers, ``log`` the file with its output."""

    name: str
    pid: int
    ticks: int
    url: str
    log: str


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A provider of the network; ``kind`` is ``compute`` (runs coordinators) or ``data``."""

    name: str
    kind: str
    home: str
    gateway_port: int
    launcher_port: int

    def gateway_url(self) -> str:
        """Where its gateway answers."""
        return f"http://127.0.0.1:{self.gateway_port}"


@dataclass(frozen=True, slots=True)
class State:
    """How the network is doing; ``phase`` is ``starting``, ``ready``, ``failed`` or ``stopped``."""

    phase: str
    message: str = ""
    pid: int = 0
    ticks: int = 0
    rpc_url: str = ""
    metadata_url: str = ""
    coordinator_ports: tuple[int, int] = (0, 0)
    processes: tuple[ProcessEntry, ...] = ()
    providers: tuple[ProviderEntry, ...] = ()

    def is_running(self) -> bool:
        """Whether its supervisor lives."""
        return bool(self.pid) and alive(self.pid, self.ticks)

    def provider(self, name: str) -> ProviderEntry:
        """The provider of that name.

        Raises:
            SettingsError: there is none.
        """
        for entry in self.providers:
            if entry.name == name:
                return entry
        raise SettingsError(
            f"no provider {name!r} in this network; there are {', '.join(p.name for p in self.providers)}"
        )

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> State:
        """What ``to_json`` wrote."""
        return cls(
            **body
            | {
                "coordinator_ports": tuple(body["coordinator_ports"]),
                "processes": tuple(ProcessEntry(**row) for row in body["processes"]),
                "providers": tuple(ProviderEntry(**row) for row in body["providers"]),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """For the state file and ``devnet status --json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one embedded network."""

    root: Path

    @classmethod
    def at(cls, root: Path | str) -> Home:
        """The folder, as an absolute path."""
        return cls(Path(root).resolve())

    @property
    def network_file(self) -> Path:
        """The network.json that clients and providers read."""
        return self.root / "network.json"

    @property
    def state_file(self) -> Path:
        """Written by the supervisor alone."""
        return self.root / "devnet.json"

    @property
    def data_scientist(self) -> Path:
        """Folder with the data scientist's key and password."""
        return self.root / "data-scientist"

    def provider(self, name: str) -> Path:
        """Data folder of a provider."""
        return self.root / "providers" / name

    def log(self, name: str) -> Path:
        """Output of a process."""
        return self.root / "logs" / f"{name}.log"

    def load(self) -> State:
        """How the network is doing; ``stopped`` where there never was one or its supervisor is gone."""
        try:
            state = State.from_json(json.loads(self.state_file.read_text()))
        except FileNotFoundError:
            return State("stopped")
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{self.state_file} is damaged", hint=f"remove {self.root} and start anew") from error
        if state.phase in {"starting", "ready"} and not state.is_running():
            return replace(state, phase="stopped", message="the supervisor is gone")
        return state

    def save(self, state: State) -> None:
        """Write the state, whole or not at all."""
        write_json(self.state_file, state.to_json())

    def log_tail(self, name: str, lines: int = 12) -> str:
        """The end of a process's output."""
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""
