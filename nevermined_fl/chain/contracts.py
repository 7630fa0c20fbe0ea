"""Contracts: their ABI and unlinked code, from the nevermined-contracts wheel or a folder."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTRACTS", "Artifact", "load_artifact"]

CONTRACTS = (
    "DIDRegistryLibrary",
    "EpochLibrary",
    "NeverminedToken",
    "DIDRegistry",
    "ConditionStoreManager",
    "TemplateStoreManager",
    "AgreementStoreManager",
    "LockPaymentCondition",
    "EscrowPaymentCondition",
    "ComputeExecutionCondition",
    "AccessCondition",
    "EscrowComputeExecutionTemplate",
    "AccessTemplate",
)
"""What a network consists of, in an order in which it can be deployed."""

_LIBRARIES = {"DIDRegistry": "DIDRegistryLibrary", "ConditionStoreManager": "EpochLibrary"}
_PLACEHOLDER = re.compile(r"__\$[0-9a-f]{34}\$__")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract."""

    name: str
    abi: tuple[dict[str, Any], ...]
    code: str
    """Creation code in hex, with placeholders where libraries belong."""
    version: str

    def linked(self, addresses: Mapping[str, str]) -> str:
        """The code with its library's address in it; each of ours needs one library at most."""
        if not _PLACEHOLDER.search(self.code):
            return self.code
        return _PLACEHOLDER.sub(addresses[_LIBRARIES[self.name]].removeprefix("0x").lower(), self.code)

    def has(self, name: str) -> bool:
        """Whether it has a function of this name."""
        return any(entry["type"] == "function" and entry["name"] == name for entry in self.abi)


@cache
def load_artifact(name: str, artifacts: str = "mumbai") -> Artifact:
    """Read a contract.

    Args:
        name: as in CONTRACTS.
        artifacts: a set of the nevermined-contracts wheel, or a folder with ``<name>.<network>.json``.

    Raises:
        SettingsError: there is none.
    """
    try:
        body = json.loads(_path(name, artifacts).read_text())
        abi, code, version = body["abi"], body.get("bytecode", ""), body.get("version", "")
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(
            f"no contract {name} in {artifacts!r}", hint="install nevermined-contracts==1.3.12"
        ) from error
    return Artifact(name=name, abi=tuple(abi), code=code, version=version.lstrip("v"))


def _path(name: str, artifacts: str) -> Path:
    folder = Path(artifacts)
    if folder.is_dir():
        return next(iter(sorted(folder.glob(f"{name}.*json"))), folder / f"{name}.json")
    from nevermined_contracts import get_artifact_path  # noqa: PLC0415  not needed with a folder

    return Path(get_artifact_path(name, artifacts))
