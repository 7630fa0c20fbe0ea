"""Which data does the demo train on, and who holds which rows?

Real data, straight from scikit-learn's wheel: importing sklearn itself takes five seconds of CPU time. Every class has
a home provider that holds most of its rows, as clinics differ in their patients; a quarter of all rows, drawn first,
stays with the data scientist for testing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DATASETS", "Floats", "Split", "Table", "hyperparameters", "load", "split", "write_csv"]

_TEST_SHARE = 0.25
_HOME_ODDS = 6.0
_BATCH, _EPOCHS, _RATE = 32, 5, {"digits": 1.0, "breast-cancer": 0.3}

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of numbers; the last column is the class."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Floats

    def classes(self) -> int:
        """How many classes there are."""
        return int(self.rows[:, -1].max()) + 1


@dataclass(frozen=True, slots=True)
class Split:
    """One part per provider, in order, and the data scientist's test rows."""

    parts: tuple[Floats, ...]
    test: Floats

    def pooled(self) -> Floats:
        """All providers' rows together, which nobody has in real life."""
        return np.concatenate(self.parts)


def load(name: str) -> Table:
    """One of DATASETS.

    Raises:
        SettingsError: no such dataset, or scikit-learn is not installed.
    """
    if name not in DATASETS:
        raise SettingsError(f"no dataset {name!r}; there are {', '.join(DATASETS)}")
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise SettingsError("scikit-learn is not installed", hint="pip install 'nevermined-fl[devnet]'")
    return DATASETS[name](Path(package.origin).parent / "datasets" / "data")


def split(table: Table, *, providers: int, seed: int) -> Split:
    """Draw the test rows, then give each class's rows to the providers, most of them to the class's home."""
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(table.rows))
    cut = round(_TEST_SHARE * len(order))
    test, rest = table.rows[order[:cut]], table.rows[order[cut:]]
    piles: list[list[Floats]] = [[] for _ in range(providers)]
    for label in range(table.classes()):
        shares = np.ones(providers)
        shares[label % providers] = _HOME_ODDS
        rows = rest[rest[:, -1] == label]
        cuts = np.floor(np.cumsum(shares / shares.sum())[:-1] * len(rows)).astype(int)
        for pile, piece in zip(piles, np.split(rows, cuts), strict=True):
            pile.append(piece)
    parts = tuple(chance.permutation(np.concatenate(pile)) for pile in piles)
    if min(map(len, parts)) < _BATCH:
        raise SettingsError(f"{table.name} is too small for {providers} providers")
    return Split(parts, test)


def hyperparameters(table: Table, test: Floats) -> dict[str, Any]:
    """What the demo's algorithm needs to know; the scale comes from the data scientist's own rows."""
    rows = test[:, :-1]
    spread = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
    scale: dict[str, Any] = {"offset": 0, "scale": 16}
    if table.name != "digits":
        scale = {"offset": _rounded(rows.mean(axis=0)), "scale": _rounded(spread)}
    return scale | {
        "features": rows.shape[1],
        "classes": table.classes(),
        "learning_rate": _RATE[table.name],
        "epochs": _EPOCHS,
        "batch": _BATCH,
    }


def write_csv(path: Path, columns: Sequence[str], rows: Floats) -> Path:
    """Write a CSV file with a header; whole numbers without a point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(columns), *(",".join(f"{value:.10g}" for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _digits(folder: Path) -> Table:
    rows = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
    columns = (*(f"pixel_{row}_{column}" for row in range(8) for column in range(8)), "digit")
    return Table("digits", "handwritten digits, 8 x 8 pixels", columns, rows)


def _breast_cancer(folder: Path) -> Table:
    rows = np.loadtxt(folder / "breast_cancer.csv", delimiter=",", skiprows=1)
    measures = (
        "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
    )
    columns = (*(f"{kind}_{measure}" for kind in ("mean", "error", "worst") for measure in measures.split()), "benign")
    return Table("breast-cancer", "measurements of breast tumours", columns, rows)


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.3g}") for value in values]


DATASETS = {"digits": _digits, "breast-cancer": _breast_cancer}
"""Name on the command line to its reader."""
