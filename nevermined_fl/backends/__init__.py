"""Backends: where a job's processes run. They know nothing of sessions, agreements or chains.

``open_backend`` is the way in; each backend is a module of its own and does not know the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from nevermined_fl.ports import Backend
    from nevermined_fl.settings import ProviderSettings

__all__ = ["BACKENDS", "open_backend"]

BACKENDS = {"process": "nevermined_fl.backends.process"}
"""Name in ``provider.toml`` to the module whose ``from_settings`` makes it."""


def open_backend(settings: ProviderSettings) -> Backend:
    """The backend that the provider's settings name.

    Raises:
        SettingsError: no such backend.
        BackendError: it does not work on this machine, or not as safely as the settings ask.
    """
    module = BACKENDS.get(settings.backend)
    if module is None:
        raise SettingsError(f"backend {settings.backend!r} is unknown; known are {', '.join(BACKENDS)}")
    backend: Backend = import_module(module).from_settings(settings)
    return backend
