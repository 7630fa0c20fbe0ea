"""What lies in a provider's data folder, and how are its settings written without losing the provider's own lines?"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import SettingsError
from nevermined_fl.files import write_atomic
from nevermined_fl.keys import KeyFile
from nevermined_fl.settings import load_provider

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.settings import ProviderSettings

__all__ = ["create_home", "create_key", "enlist_dataset"]


def create_home(settings: ProviderSettings, *, password: str = "", fast_key: bool = False) -> None:
    """Make the folder of ``settings.home``: provider.toml, key and password files, launcher secret; all private.

    Args:
        settings: written to provider.toml.
        password: protects the key; a random one is made when it is empty.
        fast_key: few iterations of the key's encryption, for throw-away networks alone.

    Raises:
        SettingsError: there is a provider already.
    """
    home = settings.home
    if (home / "provider.toml").exists():
        raise SettingsError(f"{home} holds a provider already", hint="edit its provider.toml")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_key(home, settings.key_file, settings.password_file, password=password, fast=fast_key)
    write_atomic(settings.path(settings.launcher.secret_file), secrets.token_urlsafe(32) + "\n")
    (home / "content").mkdir(exist_ok=True, mode=0o700)
    write_atomic(home / "provider.toml", _toml(settings))


def create_key(home: Path, key_file: str, password_file: str, *, password: str = "", fast: bool = False) -> str:
    """Make a key file and its password file, both 0600, where there is none; the address of a new one."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (home / key_file).exists():
        return ""
    chosen = password or secrets.token_urlsafe(24)
    write_atomic(home / password_file, chosen + "\n")
    return KeyFile.create(home / key_file, chosen, fast=fast).address


def enlist_dataset(home: Path, did: str, path: Path) -> None:
    """Say in provider.toml where the data of ``did`` lie; the rest of the file, comments too, stays as it is."""
    file = home / "provider.toml"
    inside = path.resolve().is_relative_to(home.resolve())
    stated = os.path.relpath(path.resolve(), home.resolve()) if inside else str(path.resolve())
    if load_provider(home).datasets.get(did) == stated:
        return
    lines = file.read_text().splitlines()
    entry = f"{_value(did)} = {_value(stated)}"
    headers = [number for number, line in enumerate(lines) if line.strip() == "[datasets]"]
    if headers:
        lines.insert(headers[0] + 1, entry)
    else:
        lines += ["", "[datasets]", entry]
    write_atomic(file, "\n".join(lines) + "\n")
    load_provider(home)


def _toml(settings: ProviderSettings) -> str:
    """All settings as TOML, the tables last, as TOML wants it."""
    named = [(field.name, getattr(settings, field.name)) for field in fields(settings) if field.name != "home"]
    plain = [
        f"{name} = {_value(value)}" for name, value in named if not isinstance(value, dict) and not is_dataclass(value)
    ]
    parts = ["# docs/settings.md explains every line. What is not allowed here is refused.", *plain]
    for name, value in named:
        if isinstance(value, dict):
            parts += ["", f"[{name}]", *(f"{_value(key)} = {_value(item)}" for key, item in value.items())]
        elif is_dataclass(value):
            rows = ((field.name, getattr(value, field.name)) for field in fields(value))
            parts += ["", f"[{name}]", *(f"{key} = {_value(item)}" for key, item in rows)]
    return "\n".join(parts) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's, once nothing outside of ASCII is escaped in pairs.
    return json.dumps(value, ensure_ascii=False)
