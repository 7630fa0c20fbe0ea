"""What does a dataset show of itself: its columns, how many rows, and a few mock rows?

Rule 1: no value of the data leaves this module. Mock numbers are drawn at random from the range in which most of the
column lies, widened to round numbers; mock texts are made up. A value that would equal a real one by its looks alone
(more than two digits) cannot come out.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.assets import Column, FileEntry, Schema
from nevermined_fl.errors import SettingsError
from nevermined_fl.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Description", "describe", "file_entry"]

_MOCK_ROWS = 5
_MAX_COLUMNS = 10_000
_MOST = (5.0, 95.0)
_CSV_TYPE = "text/csv"


@dataclass(frozen=True, slots=True)
class Description:
    """What is published of a dataset."""

    schema: Schema
    sample: dict[str, Any]
    file: FileEntry


def describe(path: Path | str, *, mock_rows: int = _MOCK_ROWS) -> Description:
    """Describe one CSV file with a header.

    Raises:
        SettingsError: no such file, no header, no rows, or a row with another number of cells than the header.
    """
    file = Path(path)
    names, table = _read(file)
    columns = tuple(_Values.of(name, cells) for name, cells in zip(names, zip(*table, strict=True), strict=True))
    # Seeded by the header, not by the data: even the choice of the mock values says nothing about a row.
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(",".join(names).encode()).digest()[:8], "big"))
    mock = [column.mock(chance, mock_rows) for column in columns]
    schema = Schema(tuple(Column(column.name, column.dtype) for column in columns), len(table))
    sample = {"columns": list(names), "rows": [list(row) for row in zip(*mock, strict=True)]}
    return Description(schema, sample, file_entry(file))


def file_entry(path: Path, content_type: str = _CSV_TYPE) -> FileEntry:
    """Name, size and digest of a file, as a DDO lists it."""
    return FileEntry(path.name, content_type, path.stat().st_size, sha256_file(path).removeprefix("sha256:"))


@dataclass(frozen=True, slots=True)
class _Values:
    """One column: ``low`` and ``high`` bound most of its numbers, roundly; None for texts."""

    name: str
    dtype: str
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, name: str, cells: tuple[str, ...]) -> _Values:
        numbers = _numbers(cells)
        if numbers is None:
            return cls(name, "string")
        whole = bool(np.all(numbers == np.floor(numbers))) and not any("." in cell or "e" in cell for cell in cells)
        low, high = _widened(*np.percentile(numbers, _MOST))
        return cls(name, "int64" if whole else "float64", low, high)

    def mock(self, chance: np.random.Generator, rows: int) -> list[Any]:
        if self.dtype == "string":
            return [f"text-{n}" for n in range(1, rows + 1)]
        drawn = [_two_digits(value) for value in chance.uniform(self.low, self.high, rows)]
        return [int(value) for value in drawn] if self.dtype == "int64" else drawn


def _read(file: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    try:
        with file.open(newline="", encoding="utf-8") as source:
            rows = _rows(file, csv.reader(source))
            names = tuple(name.strip() for name in next(rows, []))
            table = list(rows)
    except FileNotFoundError as error:
        raise SettingsError(f"no file {file}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{file} is not a CSV file that can be read") from error
    if not names or not table:
        raise SettingsError(f"{file} should have a header and at least one row")
    if len(names) > _MAX_COLUMNS or len(set(names)) != len(names) or not all(names):
        raise SettingsError(f"{file}: the header should name each of at most {_MAX_COLUMNS} columns once")
    return names, table


def _rows(file: Path, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    width = 0
    for number, row in enumerate(reader, 1):
        if not row:
            continue
        width = width or len(row)
        if len(row) != width:
            raise SettingsError(f"{file}, line {number}: {len(row)} cells where the header has {width}")
        yield row


def _numbers(cells: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return numbers if np.all(np.isfinite(numbers)) else None


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range, widened to one digit of its larger end."""
    largest = max(abs(low), abs(high))
    if largest == 0:
        return 0.0, 1.0
    step = 10.0 ** math.floor(math.log10(largest))
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _two_digits(value: float) -> float:
    return float(f"{value:.1e}")
