"""Which options do many commands share, and how do they become objects?"""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import nevermined_fl
from nevermined_fl.devnet.home import DEFAULT_HOME
from nevermined_fl.errors import SettingsError
from nevermined_fl.settings import load_network

if TYPE_CHECKING:
    from nevermined_fl import DataScientist, Provider

__all__ = [
    "ContinueFrom",
    "JsonFlag",
    "KeyFileOption",
    "NetworkOption",
    "PasswordOption",
    "ProviderHome",
    "data_scientist",
    "network_file",
    "provider",
]

NETWORK_VARIABLE = "NEVERMINED_FL_NETWORK"
KEY_VARIABLE = "NEVERMINED_FL_KEY"

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, progress on stderr.")]
NetworkOption = Annotated[
    Path | None,
    typer.Option("--network", help=f"The network.json; default ${NETWORK_VARIABLE}, then {DEFAULT_HOME}/network.json."),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key", help=f"Your key file; default ${KEY_VARIABLE}, then the devnet's data scientist."),
]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="File with the key's password; default $NEVERMINED_FL_PASSWORD."),
]
ContinueFrom = Annotated[
    str, typer.Option(metavar="DID", help="Begin with the model of an earlier session, in place of what the file says.")
]
ProviderHome = Annotated[
    Path, typer.Option("--home", help="The provider's data folder, with provider.toml.", show_default=True)
]


def network_file(path: Path | None) -> Path:
    """The file of ``--network``, the environment, or the devnet in this folder."""
    return path or Path(os.environ.get(NETWORK_VARIABLE) or DEFAULT_HOME / "network.json")


def data_scientist(key: Path | None, password_file: Path | None, network: Path | None) -> DataScientist:
    """The data scientist of ``--key``, the environment, or the devnet that the network file belongs to."""
    found = network_file(network)
    loaded = load_network(found)
    chosen = key or (Path(os.environ[KEY_VARIABLE]) if os.environ.get(KEY_VARIABLE) else None)
    if chosen is None:
        chosen = found.parent / "data-scientist" / "key.json"
        if not chosen.exists():
            raise SettingsError("no key", hint="name one with --key, or make one with: nevermined-fl keys new key.json")
    return nevermined_fl.DataScientist(chosen, loaded, password_file=password_file)


def provider(home: Path) -> Provider:
    """The provider of ``--home``."""
    return nevermined_fl.Provider(home)


def smallest_units(text: str, decimals: int) -> int:
    """A price in tokens, as typed, in the token's smallest unit.

    Raises:
        SettingsError: no number, below 0, or with more decimals than the token has.
    """
    try:
        amount = Decimal(text).scaleb(decimals)
    except InvalidOperation as error:
        raise SettingsError(f"a price is a number of tokens, not {text!r}") from error
    if not amount.is_finite() or amount < 0 or amount != amount.to_integral_value():
        raise SettingsError(f"a price is 0 or more with at most {decimals} decimals, not {text}")
    return int(amount)
