"""The cases of ``python -m benchmarks``, each with what it must reach on a quiet machine with two cores."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.work import Work

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Case:
    """A session to measure. ``most`` are upper limits of keys of its line."""

    work: Work
    most: dict[str, float] = field(default_factory=dict)
    raw: bool = False


ROUNDS = {
    "plain": Case(
        Work(10 * _MILLION, 10, rounds=5),
        {"round_s": 1.2, "server_rss_mb": 250, "server_cpu_s": 1.0, "wire_ratio": 1.01, "ratio_to_raw": 6},
        raw=True,
    ),
    "tls": Case(
        Work(10 * _MILLION, 10, rounds=5, tls=True), {"round_s": 1.8, "server_rss_mb": 260, "server_cpu_s": 1.7}
    ),
    "hundred": Case(Work(10 * _MILLION, 100, rounds=1, processes=4), {"server_rss_mb": 270}),
    "gigabyte": Case(Work(250 * _MILLION, 4, rounds=1), {"server_rss_mb": 2.5 * 1000}),
    "fifty": Case(Work(_MILLION, 50, rounds=10, processes=4), {"round_s": 0.6, "server_rss_mb": 150}),
    "small": Case(Work(_MILLION // 10, 2, rounds=100), {"round_s": 0.015}),
    "small-tls": Case(Work(_MILLION // 10, 2, rounds=100, tls=True)),
}

QUICK = {
    "quick": Case(Work(100_000, 2, rounds=10), raw=True),
    "quick-tls": Case(Work(10_000, 4, rounds=10, tls=True, processes=2)),
}
SCALING = (2, 10, 50, 200, 1000)
"""Numbers of participants for which the time per participant is compared, with 10000 numbers each."""

FOLDING_PARAMS = (1_000_000, 10_000_000)
"""Numbers of parameters at which strategies are measured: memory must not grow with them."""
