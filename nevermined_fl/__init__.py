"""Train one model over data that may not leave its owners, bought and paid through the Nevermined marketplace.

``from nevermined_fl import DataScientist, Provider, Trainer`` is the public Python interface. Names are loaded on first
use, so that an image that needs only :class:`Trainer` imports no web3.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nevermined_fl.marketplace.data_scientist import DataScientist
    from nevermined_fl.marketplace.provider import Provider
    from nevermined_fl.trainers import Evaluation, Trainer, Update

__all__ = ["DataScientist", "Evaluation", "Provider", "Trainer", "Update", "__version__"]
__version__ = "0.1.0"

_HOME = {
    "DataScientist": "nevermined_fl.marketplace.data_scientist",
    "Provider": "nevermined_fl.marketplace.provider",
    "Evaluation": "nevermined_fl.trainers",
    "Trainer": "nevermined_fl.trainers",
    "Update": "nevermined_fl.trainers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
