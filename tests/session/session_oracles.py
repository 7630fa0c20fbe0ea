"""The plan's rules computed a second time, plainly: what the books hold the session against."""

import hashlib
import math
from fractions import Fraction


def lot(plan, number, participant, attempt=0):
    name = f"{number}.{attempt}" if attempt else f"{number}"
    return hashlib.sha256(f"{plan.seed}:{name}:{participant}".encode()).hexdigest()


def seed(plan, number, participant, attempt=0):
    """What a participant trains with: another one each attempt, unless late updates count."""
    return int(lot(plan, number, participant, attempt if plan.late_updates == "drop" else 0)[:16], 16) // 2


def decimal(number):
    return Fraction(str(number))


def target(plan, pool):
    return max(plan.min_participants, math.ceil(decimal(plan.participants_ratio) * pool))


def cohort(plan, number, attempt, here, given):
    """Everybody who gave an update, and of the others those with the least lots until there are enough."""
    pool = len(set(here) | set(given))
    ideal = decimal(plan.over_selection) * max(decimal(plan.participants_ratio) * pool, plan.min_participants)
    size = min(pool, max(target(plan, pool), math.ceil(ideal)))
    lots = sorted((lot(plan, number, one, attempt), one) for one in set(here) - set(given))
    return tuple(sorted([*given, *[one for _, one in lots[: size - len(given)]]]))


def mean(pairs):
    """Of (decimal, weight) pairs, rounded once."""
    return float(sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs))


def is_evaluated(plan, number):
    return bool(plan.metrics) and (number % plan.evaluate_every == 0 or number == plan.rounds)


def stops_early(plan, means):
    """``means``: one dict of metrics per committed round, so far."""
    stop = plan.early_stop
    if stop is None or stop.metric not in means[-1]:
        return False
    sign = 1 if stop.goal == "max" else -1
    series = [sign * mean[stop.metric] for mean in means if stop.metric in mean]
    if stop.target is not None and series[-1] >= sign * stop.target:
        return True
    old, new = series[: -stop.patience], series[-stop.patience :]
    bar = decimal(max(old)) + decimal(stop.tolerance) if old and stop.tolerance is not None else None
    return bar is not None and all(decimal(value) <= bar for value in new)


def longest(plan, phase):
    """Seconds of a phase's clock."""
    if phase == "selection":
        return plan.selection_timeout
    if phase == "evaluation" and plan.evaluation_timeout is not None:
        return plan.evaluation_timeout
    return plan.round_timeout
