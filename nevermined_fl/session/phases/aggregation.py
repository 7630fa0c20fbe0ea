"""Aggregation: the driver folds the round's updates into the next model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nevermined_fl.errors import LocalProtocolError
from nevermined_fl.session.orders import discards
from nevermined_fl.session.phases import evaluation

if TYPE_CHECKING:
    from nevermined_fl.session.events import Aggregated
    from nevermined_fl.session.moves import Step
    from nevermined_fl.session.state import Session

__all__ = ["on_aggregated"]


def on_aggregated(session: Session, event: Aggregated, now: float) -> Step:
    """The model is durable: the updates may go, and the model is tried out."""
    if event.round != session.round:
        raise LocalProtocolError(f"round {event.round} was aggregated during round {session.round}")
    tried, effects = evaluation.begin(replace(session, model=event.model), now)
    return tried, (*discards(session), *effects)
