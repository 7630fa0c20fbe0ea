"""Which updates lie near to others? What Krum and Multi-Krum share.

Distances come from the products of all changes with each other: one pass over the updates and one matrix product per
block, where each pair on its own would read all of them N times. The products are float64 sums of changes against the
model rather than of weights, so little is lost to cancellation; updates whose scores differ by less than about 1e-12 of
them may still change places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nevermined_fl.aggregation.rule import Block

__all__ = ["nearest", "products", "squared_distances"]

_STRIP = 4 << 20
"""Numbers of all updates that are held as float64 changes at the same time."""


def products(blocks: Sequence[Block], previous: Block) -> Block:
    """The N x N scalar products of the changes.

    Memory is theirs and 32 MiB: where changes take more (above 64 updates of 65 536 numbers), strips of them are
    multiplied one after the other, and each strip asks for all blocks again.
    """
    count, length = len(blocks), max(1, _STRIP // len(blocks))
    changes = np.empty((count, min(length, previous.size)))
    total: Block = np.zeros(())
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, previous.size, length):
            before = previous[begin : begin + length]
            strip = changes[:, : before.size]
            for index in range(count):
                np.subtract(blocks[index][begin : begin + length], before, out=strip[index], dtype=np.float64)
            product = strip @ strip.T
            total = np.add(total, product, out=product)
    return total


def squared_distances(total: Block) -> Block:
    """``|x_i - x_j|**2`` of all pairs; infinite where products overflowed."""
    norms = np.diag(total)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.maximum(norms[:, None] + norms[None, :] - 2 * total, 0.0)
    return np.where(np.isnan(squares), np.inf, squares)


def nearest(total: Block, byzantine: int, keep: int) -> Block:
    """1 for the ``keep`` updates with the least scores, 0 for others; equal scores in the cohort's order.

    A score is the sum of the squared distances to the ``n - byzantine - 2`` nearest other updates.
    """
    squares = squared_distances(total)
    np.fill_diagonal(squares, -1.0)  # first in every sorted row: an update is no neighbour of itself
    neighbours = np.sort(squares, axis=1)[:, 1 : max(1, len(squares) - byzantine - 2) + 1]
    best = np.argsort(neighbours.sum(axis=1), kind="stable")[:keep]
    shares = np.zeros(len(squares))
    shares[best] = 1.0
    return shares
