"""Is the session done? After its last round, or before: good enough, or no longer getting better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nevermined_fl.session.decimals import exact

if TYPE_CHECKING:
    from nevermined_fl.session.plan import EarlyStop, Plan
    from nevermined_fl.session.state import Round

__all__ = ["is_done"]


def is_done(plan: Plan, history: tuple[Round, ...]) -> bool:
    """Whether the newest committed round is the last one."""
    if len(history) >= plan.rounds:
        return True
    stop = plan.early_stop
    if stop is None:
        return False
    values = [value for done in history for name, value in done.metrics if name == stop.metric]
    return bool(values) and (_is_good_enough(stop, values[-1]) or _is_stuck(stop, values))


def _is_good_enough(stop: EarlyStop, value: float) -> bool:
    if stop.target is None:
        return False
    return value >= stop.target if stop.goal == "max" else value <= stop.target


def _is_stuck(stop: EarlyStop, values: list[float]) -> bool:
    """None of the last ``patience`` values beat the best one before them by more than the tolerance."""
    if stop.tolerance is None or len(values) <= stop.patience:
        return False
    rising = values if stop.goal == "max" else [-value for value in values]
    newest, before = max(rising[-stop.patience :]), max(rising[: -stop.patience])
    return exact(newest) - exact(before) <= exact(stop.tolerance)
