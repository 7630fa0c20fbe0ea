"""Runs a session over the ports: the coordinator's side of everything that is not decided in ``nevermined_fl.session``.

``opening`` reads a session off its journal, ``conductor`` changes it, ``driver`` does what it orders. ``service`` answers
participants, ``uploads`` takes in what they send. ``making`` and ``folding`` make models of it, ``peaks`` and ``distance``
measure it. ``store`` keeps models and states, ``keeper`` makes them durable, ``repairs`` looks at what a killed process
left, ``room`` waits while the disk is full. ``story`` says what happened in words for the buyer, ``status`` and ``watch``
who is late and why, ``metrics`` how many and how long. ``outputs`` writes what is left in the end: ``publish`` models,
``checkpoints``, the ``card``.
"""

from __future__ import annotations

from nevermined_fl.driver.driver import Driver, Outcome
from nevermined_fl.driver.room import wait_for_room

__all__ = ["Driver", "Outcome", "wait_for_room"]
