"""The federated session as a pure state machine: what decides belongs here, what does I/O does not.

``machine`` is where to start reading; ``events`` and ``effects`` are its two vocabularies.
"""

from __future__ import annotations

from nevermined_fl.session.machine import TRANSITIONS, replay, start, step
from nevermined_fl.session.plan import Metric, Plan, TensorSchema
from nevermined_fl.session.state import Phase, Session

__all__ = ["TRANSITIONS", "Metric", "Phase", "Plan", "Session", "TensorSchema", "replay", "start", "step"]
