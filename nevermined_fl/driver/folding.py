"""Folding: the round's updates -> the next model, block by block, a few blocks at a time.

Memory is some blocks per thread, whatever the model's size. Which thread folds which block changes no bit: blocks do not
depend on each other, and what a survey finds is added up in the file's order. The new model, its change file and the
server's state appear whole or not at all, so folding again after a crash is harmless.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nevermined_fl.aggregation.rule import Known
from nevermined_fl.codecs import delta, safetensors
from nevermined_fl.driver.desk import Blocks
from nevermined_fl.driver.parts import Parts
from nevermined_fl.driver.peaks import peak_before, peaks_of
from nevermined_fl.driver.server_state import State, write_all
from nevermined_fl.driver.work import opened
from nevermined_fl.errors import SessionFailed
from nevermined_fl.files import atomic_file, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from nevermined_fl.aggregation.rule import Aggregator
    from nevermined_fl.codecs.blocks import Piece
    from nevermined_fl.driver.desk import Desk
    from nevermined_fl.driver.work import Work
    from nevermined_fl.session import TensorSchema

    Block = np.ndarray[Any, Any]

__all__ = ["Given", "fold"]

_SURVEYED = 4 << 20
"""Numbers of all updates that a survey holds at the same time: as float64 changes 32 MiB."""


@dataclass(frozen=True, slots=True)
class Given:
    """One accepted update: its file, its weight, and a number that none in the file exceeds (None: read it to see)."""

    path: Path
    weight: int
    peak: float | None = None


def fold(
    aggregator: Aggregator,
    schema: Sequence[TensorSchema],
    *,
    precision: str = "f32",
    arithmetic: str = "fixed",
    members: int = 0,
    previous: Path,
    updates: Sequence[Given],
    into: Path,
    change: Path | None = None,
    state_before: Path,
    state_after: Path,
) -> str:
    """Write the next model to ``into``; returns its digest.

    Args:
        aggregator: the plan's strategy.
        schema: of the model, with what the strategy carries beside it.
        precision: of the updates' files: other than ``f32`` they hold changes of ``previous``.
        arithmetic: ``fixed`` or ``float``.
        members: of the session.
        previous: the model before.
        updates: in the cohort's order.
        into: where the model goes.
        change: where the change of ``previous`` into it goes, if ``precision`` is other than ``f32``; the model is then
            what that change makes, and what it leaves out is kept for the next round.
        state_before: the server's state after the last round; it need not exist.
        state_after: where the server's state goes, if there is any.

    Raises:
        SessionFailed: too few updates for the strategy, or a model that is not finite.
    """
    if len(updates) < aggregator.fewest():
        raise SessionFailed(f"{len(updates)} updates came, the strategy needs {aggregator.fewest()}")
    weights = tuple(given.weight for given in updates)
    residual = precision != "f32"
    paths = [given.path for given in updates]
    with opened(schema, precision, previous, paths, at_once=aggregator.AT_ONCE) as work:
        parts = Parts(schema, aggregator.EXTRAS)
        given = [given.peak for given in updates]
        peaks = peaks_of(work, precision, given, parts) if arithmetic == "fixed" else {}
        if peaks and aggregator.SUMS_CHANGES:
            before = peak_before(work)
            peaks[""] = tuple(before + peak for peak in peaks[""])
        known = Known(weights, peaks.get(""), members)
        if aggregator.SURVEYS:
            known = replace(known, shares=_shares(work, aggregator, known, parts))
        kinds = {kind: replace(known, extra=kind, peaks=peaks.get(kind)) for kind in parts.kinds}
        with State(aggregator.STATE, schema, state_before, state_after, residual=residual) as state:
            folding = _Folding(aggregator, kinds, parts, state, precision)
            return _write(work, folding, into, change if residual else None)


def _shares(work: Work, aggregator: Aggregator, known: Known, parts: Parts) -> Block:
    count = _SURVEYED // len(known.weights) if aggregator.SURVEYS_AT_ONCE else _SURVEYED

    def survey(desk: Desk, piece: Piece) -> Block:
        found: Block = np.zeros(())
        for small in _cut(piece, count):
            before = desk.before(small)
            for part, extra in parts.of(small):
                if not extra:
                    surveyed = aggregator.survey(Blocks(desk, small, before, part), before[part])
                    found = np.add(found, surveyed, out=surveyed)  # they may be large
        return found

    total: Block = np.zeros(())
    for found in work.each(survey):
        total = total + found
    return aggregator.conclude(total, known.weights)


def _cut(piece: Piece, count: int) -> Iterator[Piece]:
    """A piece in smaller ones, of about ``count`` numbers; they begin where groups of ``int8`` changes do."""
    length, width = max(delta.GROUP, count // delta.GROUP * delta.GROUP), piece.size() // piece.count
    for begin in range(0, piece.count, length):
        yield replace(
            piece,
            position=piece.position + begin * width,
            count=min(length, piece.count - begin),
            first=piece.first + begin,
        )


@dataclass(frozen=True, slots=True)
class _Folding:
    """What is done with a piece."""

    aggregator: Aggregator
    known: dict[str, Known]
    parts: Parts
    state: State
    precision: str

    def __call__(self, desk: Desk, piece: Piece) -> tuple[Piece, Block, delta.Encoded | None]:
        """The next model's numbers, and the changes that make them."""
        before = desk.before(piece)
        kept = self.state.read(piece)
        residual = kept.pop(delta.RESIDUAL, None)
        after = self._fold(desk, piece, before, kept)
        encoded = None
        if self.precision != "f32":
            encoded, residual = delta.encode(before, after, residual, self.precision)
            after = delta.apply(before, delta.decode(encoded, self.precision))
            kept[delta.RESIDUAL] = residual
        self.state.write(piece, kept)
        return piece, after, encoded

    def _fold(self, desk: Desk, piece: Piece, before: Block, kept: dict[str, Block]) -> Block:
        after = np.empty_like(before)
        states = []
        for part, kind in self.parts.of(piece):
            known = self.known[kind]
            state = {name: block[part] for name, block in kept.items()}
            after[part] = self.aggregator.fold(Blocks(desk, piece, before, part), known, before[part], state)
            states.append(state)
        kept.update({name: np.concatenate([state[name] for state in states]) for name in self.aggregator.STATE})
        return after


def _write(work: Work, folding: _Folding, into: Path, change: Path | None) -> str:
    hasher = hashlib.sha256()
    layout = None if change is None else delta.Layout(work.schema, folding.precision)
    with ExitStack() as stack:
        model = stack.enter_context(atomic_file(into)).fileno()
        changes = -1 if change is None else stack.enter_context(atomic_file(change)).fileno()
        header = safetensors.header_bytes(work.schema)
        write_all(model, header, 0)
        hasher.update(header)
        if layout is not None:
            write_all(changes, safetensors.header_bytes(layout.schema), 0)
        for piece, after, encoded in work.each(folding):
            block = after.view(np.uint8).data
            write_all(model, block, piece.position)
            hasher.update(block)
            if layout is not None and encoded is not None:
                write_all(changes, encoded.scales.view(np.uint8).data, layout.scales(piece)[0])
                write_all(changes, encoded.numbers.view(np.uint8).data, layout.changes(piece)[0])
    return digest_of(hasher)
