"""Every setting of a provider and of a network: dataclasses read from TOML or JSON, checked when they are loaded.

Each field's docstring-comment gives its unit and default; docs/settings.md lists them all, and a test says so.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from nevermined_fl.errors import SettingsError

__all__ = [
    "CoordinatorSettings",
    "GatewaySettings",
    "LauncherSettings",
    "LimitSettings",
    "Network",
    "PolicySettings",
    "ProviderSettings",
    "load_network",
    "load_provider",
    "save_network",
]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PROXY = re.compile(r"http://([A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Network:
    """A Nevermined network: where its chain, contracts and metadata API are. Kept as JSON (``network.json``)."""

    rpc_url: str
    metadata_url: str
    contracts: dict[str, str]
    """Contract name to address."""
    chain_id: int = 0
    artifacts: str = "mumbai"
    """Artifact set of the nevermined-contracts wheel, or a folder of ``<Contract>.<network>.json`` files."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The provider's gateway."""

    host: str = "127.0.0.1"
    port: int = 8030
    public_url: str = ""
    """What goes into DDOs; default ``http://host:port``."""
    max_upload: int = 256 * 1024**2
    """Bytes of one uploaded file."""
    max_buyer_uploads: int = 1024**3
    """Bytes that one buyer may keep here."""


@dataclass(frozen=True, slots=True)
class LauncherSettings:
    """The provider's launcher; keep it off public addresses."""

    host: str = "127.0.0.1"
    port: int = 8031
    secret_file: str = "launcher.secret"  # noqa: S105  a file name
    """Bearer secret shared with the gateway; made by ``provider init``."""
    restarts: int = 3
    """How often a job that lost its peer is started again."""
    proxy: str = ""
    """HTTP CONNECT proxy, ``http://host:port``, that every outbound connection goes through; default none."""

    def proxy_for(self, url: str) -> str:
        """The proxy through which a service of network.json is asked; one on this very machine is asked directly."""
        return "" if urlsplit(url).hostname in _LOOPBACK else self.proxy


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """Where coordinators listen (compute providers only)."""

    bind_host: str = "127.0.0.1"
    public_host: str = "127.0.0.1"
    """Host name or address that participants dial."""
    first_port: int = 20000
    last_port: int = 20999


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What the provider allows; everything else is refused."""

    buyers: tuple[str, ...] = ()
    """Addresses that may run jobs; ``*`` is everybody."""
    images: tuple[str, ...] = ("nevermined-fl/participant", "nevermined-fl/coordinator")
    """Images that a workflow may name."""
    allow_private_targets: bool = False
    """Whether the relay may dial private, loopback and link-local addresses."""
    allow_no_isolation: bool = False
    """Whether jobs may run where no isolation (bubblewrap) is to be had."""
    min_blocks_left: int = 10
    """Blocks that must remain on an agreement beyond the plan's maximum duration."""
    max_rounds: int = 10_000
    """Most rounds that a plan may have; 0 is no bound, here and below."""
    max_model_bytes: int = 4 * 1024**3
    """Most bytes of tensors in one model, and in all checkpoints of a session that is coordinated here."""
    max_session_seconds: int = 7 * 24 * 3600
    """Most seconds that a session may take by its plan: all of its timeouts, one after the other."""


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Limits of one job."""

    memory: int = 2 * 1024**3
    """Bytes."""
    cpu_seconds: int = 3600
    """Seconds of CPU time."""
    processes: int = 256
    job_seconds: int = 24 * 3600
    """Seconds that a job may take in all."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider: its key, its services and what it allows (``provider.toml`` in its data folder)."""

    home: Path
    name: str
    network: str
    """Path of network.json, relative to the data folder."""
    key_file: str = "key.json"
    password_file: str = "password"  # noqa: S105  a file name
    backend: str = "process"
    datasets: dict[str, str] = field(default_factory=dict)
    """Dataset DID to file or folder, relative to the data folder."""
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    launcher: LauncherSettings = field(default_factory=LauncherSettings)
    coordinator: CoordinatorSettings = field(default_factory=CoordinatorSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    limits: LimitSettings = field(default_factory=LimitSettings)

    def path(self, relative: str) -> Path:
        """A path of the data folder."""
        return (self.home / relative).resolve()

    def gateway_url(self) -> str:
        """The gateway as others see it, without a trailing slash."""
        return (self.gateway.public_url or f"http://{self.gateway.host}:{self.gateway.port}").rstrip("/")

    def launcher_url(self) -> str:
        """The launcher as the gateway sees it."""
        return f"http://{self.launcher.host}:{self.launcher.port}"


def load_provider(home: Path | str) -> ProviderSettings:
    """Read ``provider.toml`` of a provider's data folder.

    Raises:
        SettingsError: no such file, not TOML, an unknown setting, or a value of the wrong type.
    """
    path = Path(home) / "provider.toml"
    try:
        body = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise SettingsError(f"no {path}", hint="make one with: nevermined-fl provider init") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    settings: ProviderSettings = _parse(ProviderSettings, body | {"home": Path(home).resolve()}, str(path))
    if settings.launcher.proxy and not _PROXY.fullmatch(settings.launcher.proxy):
        raise SettingsError(
            f"{path}: launcher.proxy should be http://host:port, without a password",
            hint="TLS runs inside of the tunnel, so the proxy itself is spoken to in plain HTTP",
        )
    return settings


def load_network(path: Path | str) -> Network:
    """Read a network.json.

    Raises:
        SettingsError: no such file, not JSON, or a field of the wrong type.
    """
    try:
        body = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise SettingsError(f"no network file {path}", hint="start one with: nevermined-fl devnet up") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON") from error
    network: Network = _parse(Network, body, str(path))
    return network


def save_network(network: Network, path: Path | str) -> None:
    """Write a network.json, whole or not at all."""
    body = {f.name: getattr(network, f.name) for f in fields(network)}
    temporary = Path(f"{path}.part")
    temporary.write_text(json.dumps(body, indent=2) + "\n")
    temporary.replace(path)


def _parse(kind: Any, body: Any, where: str) -> Any:
    if not isinstance(body, dict):
        raise SettingsError(f"{where}: expected a table of settings, got {type(body).__name__}")
    hints = get_type_hints(kind)
    if unknown := sorted(set(body) - set(hints)):
        raise SettingsError(f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(hints))}")
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in body.items()}
    try:
        return kind(**values)
    except TypeError as error:
        missing = [f.name for f in fields(kind) if f.name not in body]
        raise SettingsError(f"{where}: a setting is missing, one of {', '.join(missing)}") from error


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _parse(hint, value, where)
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise SettingsError(f"{where} should be a list of strings")
    expected = dict if hint == dict[str, str] else hint
    if expected is bool or isinstance(value, bool):
        ok = expected is bool and isinstance(value, bool)
    else:
        ok = isinstance(value, expected)
    if not ok:
        raise SettingsError(f"{where} should be {expected.__name__}, got {value!r}")
    return value
