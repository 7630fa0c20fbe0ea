"""Targets: which addresses may a launcher dial on behalf of a stranger?

Session records and DDOs name hosts, and strangers write them. Names are resolved once, judged, and the judged address
is dialled, so that a name cannot mean something else a second later (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nevermined_fl.errors import PermissionDenied, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Target", "is_allowed", "parse_endpoint", "resolve"]

# Cloud providers' metadata services hand out credentials; no setting opens them.
_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"))
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9\-_.]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class Target:
    """One host and port, and the addresses that were judged."""

    host: str
    port: int
    addresses: tuple[str, ...]


def parse_endpoint(url: str) -> tuple[str, int]:
    """Host and port of ``https://host:port``, and of nothing else.

    Raises:
        PermissionDenied: another scheme, a path, credentials, no port.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        host, port = "", 0
    plain = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    if not port or not _HOST.fullmatch(host) or url.rstrip("/").lower() != plain:
        raise PermissionDenied(f"an endpoint is https://host:port, got {url[:100]!r}", check="endpoint_form")
    return host, port


def is_allowed(address: str, *, private: bool) -> bool:
    """Whether an IP address may be dialled; ``private`` opens private, loopback and link-local ones."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(_judge(each, private=private) for each in _meant(ip))


async def resolve(host: str, port: int, *, private: bool) -> Target:
    """Look a name up, once, and keep the addresses that may be dialled.

    Raises:
        PermissionDenied: none of them may; ``check`` is ``target_allowed``.
        TransportError: the name is unknown, now.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(f"the host {host} is not known: {error.strerror or error}") from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = tuple(address for address in addresses if is_allowed(address, private=private))
    if not allowed:
        raise PermissionDenied(
            f"{host}:{port} is at {', '.join(addresses)}, which this provider does not dial",
            check="target_allowed",
            hint="policy.allow_private_targets opens private addresses",
        )
    return Target(host, port, allowed)


def _meant(ip: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that an IPv6 one stands for."""
    if isinstance(ip, IPv4Address):
        yield ip
    elif ip.ipv4_mapped:
        yield ip.ipv4_mapped
    elif ip in _COMPATIBLE and int(ip) > 1:
        yield IPv4Address(int(ip))
    else:
        yield ip
        if ip.sixtofour:
            yield ip.sixtofour
        if ip.teredo:
            yield from ip.teredo
        if any(ip in network for network in _NAT64):
            yield IPv4Address(int(ip) & 0xFFFFFFFF)


def _judge(ip: IPv4Address | IPv6Address, *, private: bool) -> bool:
    if ip in _METADATA or ip.is_multicast or ip.is_unspecified or ip == IPv4Address("255.255.255.255"):
        return False
    # A translated address (NAT64) is no place of its own; what it stands for is judged beside it.
    translated = isinstance(ip, IPv6Address) and any(ip in network for network in _NAT64)
    return private or translated or (ip.is_global and not ip.is_reserved)
