"""Correction: what the plan's strategy adds to a participant's gradients while it trains.

Some strategies change local training itself. The participant's half of them is here; the buyer's code takes part by
calling ``Trainer.corrected`` on every gradient. ``x`` is the round's model, ``y`` the weights on their way, ``c`` the
coordinator's control variate and ``c_i`` the participant's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.trainers import Tensors, Update

__all__ = ["CONTROL", "Control", "NoStepSize", "Plain", "Proximal", "make", "split"]

CONTROL = "control"
"""What tensors of control variates are named after: ``control/<name>`` travels beside ``<name>``."""


class NoStepSize(Exception):
    """The strategy needs ``Update.step``, and it is not above 0."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Most strategies leave training alone."""

    def gradients(self, gradients: Tensors, weights: Tensors) -> Tensors:
        """As they are."""
        return gradients

    def extras(self, update: Update) -> Tensors:
        """Nothing travels beside the weights."""
        return {}


@dataclass(frozen=True, slots=True)
class Proximal:
    """FedProx: the gradient of ``mu / 2 * |y - x|^2`` keeps the weights near the round's model.

    Source: Li et al. 2020, arXiv:1812.06127, equation 2.
    """

    mu: float
    start: Tensors

    def gradients(self, gradients: Tensors, weights: Tensors) -> Tensors:
        """``g + mu * (y - x)``."""
        return {name: g + self.mu * (weights[name] - self.start[name]) for name, g in gradients.items()}

    def extras(self, update: Update) -> Tensors:
        """Nothing travels beside the weights."""
        return {}


@dataclass(frozen=True, slots=True)
class Control:
    """SCAFFOLD: gradients are corrected by how far the participant's own drift from everybody's.

    ``server`` is c, ``own`` is c_i, or None in the participant's first round, when it is zero.

    Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II.
    """

    start: Tensors
    server: Tensors
    own: Tensors | None

    def gradients(self, gradients: Tensors, weights: Tensors) -> Tensors:
        """``g - c_i + c``."""
        own = self.own
        if own is None:
            return {name: g + self.server[name] for name, g in gradients.items()}
        return {name: g + (self.server[name] - own[name]) for name, g in gradients.items()}

    def extras(self, update: Update) -> Tensors:
        """The change of c_i, ``(x - y) / step - c``: option II sets c_i to ``c_i - c + (x - y) / step``.

        Raises:
            NoStepSize: the algorithm does not say what it multiplied its gradients by.
        """
        if not update.step > 0:
            raise NoStepSize(f"scaffold needs Update.step above 0, got {update.step}")
        return {f"{CONTROL}/{name}": self._change(name, update) for name in self.start}

    def _change(self, name: str, update: Update) -> np.ndarray[Any, Any]:
        drift = (self.start[name].astype(np.float64) - update.tensors[name].astype(np.float64)) / update.step
        return (drift - self.server[name]).astype(self.server[name].dtype)


Correction = Plain | Proximal | Control


def make(
    strategy: str, options: Mapping[str, float], model: Tensors, server: Tensors, own: Tensors | None
) -> Correction:
    """The correction of one round's training. The trainer may write into ``model``, so what is kept of it is copied."""
    if strategy == "fedprox":
        return Proximal(float(options["mu"]), {name: tensor.copy() for name, tensor in model.items()})
    if strategy == "scaffold":
        return Control({name: tensor.copy() for name, tensor in model.items()}, server, own)
    return Plain()


def split(tensors: Tensors, extras: tuple[str, ...]) -> tuple[Tensors, Tensors]:
    """The model's own tensors, and the control variates that travel beside them, by the model's names."""
    if CONTROL not in extras:
        return tensors, {}
    # A model may itself have a tensor named control/...: its own are those that have such a companion.
    own = {name: tensor for name, tensor in tensors.items() if f"{CONTROL}/{name}" in tensors}
    return own, {name: tensors[f"{CONTROL}/{name}"] for name in own}
