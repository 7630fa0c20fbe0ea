"""Updates -> the next model: one file per paper. Pure, coordinate-wise, block by block; files are the driver's business.

A strategy is added with one file and one row in AGGREGATORS; ``tests/aggregation/test_laws.py`` then tries it.
"""

from __future__ import annotations

import math
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.aggregation.rule import Aggregator

__all__ = ["AGGREGATORS", "create"]

AGGREGATORS = {
    "fedavg": "nevermined_fl.aggregation.fedavg:FedAvg",
    "fedavgm": "nevermined_fl.aggregation.fedavgm:FedAvgM",
    "fedadam": "nevermined_fl.aggregation.fedadam:FedAdam",
    "fedyogi": "nevermined_fl.aggregation.fedyogi:FedYogi",
    "fedadagrad": "nevermined_fl.aggregation.fedadagrad:FedAdagrad",
    "fedprox": "nevermined_fl.aggregation.fedprox:FedProx",
    "scaffold": "nevermined_fl.aggregation.scaffold:Scaffold",
    "median": "nevermined_fl.aggregation.median:Median",
    "trimmed_mean": "nevermined_fl.aggregation.trimmed_mean:TrimmedMean",
    "krum": "nevermined_fl.aggregation.krum:Krum",
    "multi_krum": "nevermined_fl.aggregation.multi_krum:MultiKrum",
    "norm_clipping": "nevermined_fl.aggregation.norm_clipping:NormClipping",
}


def create(name: str, options: Mapping[str, float] | None = None) -> Aggregator:
    """The aggregator of that name.

    Raises:
        InvalidRequest: no such strategy, no such option, or a value out of the option's limits.
    """
    kind = _load(name)
    known: dict[str, Any] = {field.name: type(field.default) for field in fields(kind)}
    for option, value in (options or {}).items():
        if option not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"strategyOptions: {name} knows {expected}, got {str(option)[:80]!r}", check="plan")
        _check(f"strategyOptions.{option}", value, *kind.LIMITS[option], whole=known[option] is int)
    aggregator: Aggregator = kind(**{option: known[option](value) for option, value in (options or {}).items()})
    return aggregator


def _load(name: str) -> Any:
    if not isinstance(name, str) or name not in AGGREGATORS:
        expected = ", ".join(AGGREGATORS)
        raise InvalidRequest(f"strategy: expected one of {expected}, got {str(name)[:80]!r}", check="plan")
    module, _, kind = AGGREGATORS[name].partition(":")
    return getattr(import_module(module), kind)


def _check(name: str, value: Any, low: float, high: float, *, whole: bool) -> None:
    """Limits are half open: ``low <= value < high``."""
    # The comparison comes first: it refuses NaN, and a huge integer before it overflows a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value < high or not math.isfinite(value):
        # A hostile integer may have more digits than Python agrees to print.
        shown = type(value).__name__ if isinstance(value, int) and abs(value) > 10**30 else str(value)[:80]
        raise InvalidRequest(f"{name}: expected a number {low:g} <= x < {high:g}, got {shown}", check="plan")
    if whole and value != int(value):
        raise InvalidRequest(f"{name}: expected a whole number, got {value:g}", check="plan")
