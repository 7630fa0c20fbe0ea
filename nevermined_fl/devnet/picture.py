"""How do the accuracies compare, in one picture?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Curves", "draw"]

_INK, _SOFT, _GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
_FEDERATED, _POOLED = "#0b7285", "#e8590c"


@dataclass(frozen=True, slots=True)
class Curves:
    """Accuracy on the test rows after each round, from round 1."""

    federated: Sequence[float]
    pooled: Sequence[float]
    alone: Mapping[str, Sequence[float]]


def draw(curves: Curves, title: str, stem: Path) -> tuple[Path, Path]:
    """Draw ``stem.png`` and ``stem.svg``: accuracy per round, federated against pooled and each provider alone."""
    # Neither pyplot nor a window system: both would cost start-up time and state for one figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  3 s that only a picture needs
    from matplotlib.figure import Figure  # noqa: PLC0415  as above
    from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415  as above

    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rounds = range(1, len(curves.federated) + 1)
    lines = [(values, name, _SOFT, 1.2, "-") for name, values in curves.alone.items()]
    lines += [(curves.pooled, "pooled", _POOLED, 1.6, "--"), (curves.federated, "federated", _FEDERATED, 2.6, "-")]
    for values, _, colour, width, style in lines:
        axes.plot(rounds, values, color=colour, linewidth=width, linestyle=style, solid_capstyle="round")
    ends = [float(values[-1]) for values, *_ in lines]
    for (_, name, colour, _, _), height in zip(lines, _spread(ends, axes.get_ylim()), strict=True):
        axes.annotate(
            name,
            (len(rounds), height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=_INK if colour == _SOFT else colour,
            fontweight="bold" if name == "federated" else "normal",
        )
    axes.set_title(title, loc="left", color=_INK, fontweight="bold")
    axes.set_xlabel("round", color=_INK)
    axes.set_ylabel("accuracy on held-out rows", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(b=True)
    axes.tick_params(length=0, colors=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    files = stem.with_suffix(".png"), stem.with_suffix(".svg")
    for file in files:
        figure.savefig(file)
    return files


def _spread(heights: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """The heights of labels, moved apart where lines end close together."""
    gap = (limits[1] - limits[0]) * 0.055
    order = sorted(range(len(heights)), key=lambda n: heights[n])
    placed = list(heights)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    return placed
