"""Gateway: what every route of one provider's gateway works with, and which names its services go by."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nevermined_fl.errors import InvalidRequest, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway_plugin.content import Content
    from gateway_plugin.launcher import Launcher
    from gateway_plugin.ledger import Ledger
    from nevermined_fl.keys import KeyAccount
    from nevermined_fl.ports import Chain, Metadata
    from nevermined_fl.settings import ProviderSettings

__all__ = ["PREFIX", "Gateway", "agreement_id", "did", "execution_id"]

PREFIX = "/api/v1/gateway/services"
_AGREEMENT = re.compile(r"0x[0-9a-f]{64}")
_DID = re.compile(r"did:nv:[0-9a-f]{64}")
_EXECUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}|\*")
_LONG_POLLS = 8


@dataclass(frozen=True, slots=True)
class Gateway:
    """One provider's gateway. ``clock`` answers Unix seconds."""

    settings: ProviderSettings
    account: KeyAccount
    chain: Chain
    metadata: Metadata
    launcher: Launcher
    ledger: Ledger
    content: Content
    prefix: str = PREFIX
    clock: Callable[[], float] = time.time
    # Each long poll occupies a server thread; anybody may poll, so polls may never occupy all of them.
    polls: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_LONG_POLLS))

    def audience(self, service: str) -> str:
        """The audience of a service that no other gateway shares."""
        return f"{self.settings.gateway_url()}{self.prefix}/{service}"

    def addresses(self) -> tuple[str, ...]:
        """The addresses under which this provider owns or provides assets."""
        return (self.account.address,)

    def admit_buyer(self, address: str) -> None:
        """Let in whom the provider's policy names.

        Raises:
            PermissionDenied: somebody else.
        """
        buyers = self.settings.policy.buyers
        if "*" not in buyers and address.lower() not in {buyer.lower() for buyer in buyers}:
            raise PermissionDenied(
                f"this provider's policy does not name {address}", check="buyer_allowed", hint="ask the provider"
            )


def agreement_id(text: object) -> str:
    """An agreement's id as it came from outside, checked and in lower case."""
    return _matching(_AGREEMENT, str(text).lower(), "an agreement id, 0x and 64 hex digits")


def did(text: object) -> str:
    """A DID as it came from outside, checked."""
    return _matching(_DID, str(text), "a DID, did:nv: and 64 hex digits")


def execution_id(text: object) -> str:
    """An execution's id as it came from outside, checked; ``*`` stands for all of an agreement."""
    return _matching(_EXECUTION, str(text), "an execution id")


def _matching(pattern: re.Pattern[str], text: str, expected: str) -> str:
    if not pattern.fullmatch(text):
        raise InvalidRequest(f"expected {expected}, got {text[:80]!r}", check="id_format")
    return text
