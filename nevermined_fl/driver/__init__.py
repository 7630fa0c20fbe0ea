"""Runs a session over the ports: the coordinator's side of everything that is not decided in ``nevermined_fl.session``.

``driver`` does what the session orders, ``service`` answers participants, ``folding`` makes models of updates, ``story``
says what happened in words for the buyer, ``outputs`` writes what is published.
"""

from __future__ import annotations

from nevermined_fl.driver.driver import Driver, Outcome

__all__ = ["Driver", "Outcome"]
