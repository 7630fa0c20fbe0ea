"""Outcome: what a coordinator left behind, read as carefully as anything that a job writes."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nevermined_fl.errors import SessionFailed
from nevermined_fl.files import sha256_file
from nevermined_fl.tokens import Contributor

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from nevermined_fl.launcher.order import Order

__all__ = ["Outcome", "has_outcome", "read_outcome"]

logger = logging.getLogger(__name__)

_RESULT_BYTES = 16 * 1024**2
_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished session: the model's digest, who is in it, and the metrics of its last evaluation.

    ``checkpoints`` are files of the outputs' folder ``checkpoints``, in the order of their rounds; ``checkpoints_lost``
    are the rounds of those that were damaged.
    """

    model: str
    contributors: tuple[Contributor, ...]
    metrics: dict[str, float]
    checkpoints: tuple[str, ...] = ()
    checkpoints_lost: tuple[int, ...] = ()


def has_outcome(outputs: Path) -> bool:
    """Whether the coordinator came to an end: it writes its result last and whole."""
    return (outputs / "result.json").is_file()


def read_outcome(outputs: Path, order: Order, admitted: Collection[tuple[str, str]]) -> Outcome:
    """The outcome of a finished session.

    Raises:
        SessionFailed: it failed, or what it left behind makes no sense; the message says which.
    """
    result = _read(outputs / "result.json")
    if result.get("outcome") != "finished":
        raise SessionFailed(str(result.get("reason") or "the coordinator gave no reason")[:_REASON_CHARACTERS])
    model = outputs / "model.safetensors"
    if not (_is_plain(model) and _is_plain(outputs / "card.json")) or sha256_file(model) != result.get("model"):
        raise SessionFailed("the coordinator's model is not the one that its result names")
    contributors, checkpoints = _contributors(result, order, admitted), _checkpoints(result, order, outputs)
    return Outcome(result["model"], contributors, _metrics(result, order), *checkpoints)


def _read(path: Path) -> dict[str, Any]:
    if not _is_plain(path) or path.stat().st_size > _RESULT_BYTES:
        raise SessionFailed("the coordinator left no result")
    try:
        body = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise SessionFailed("the coordinator's result cannot be read")
    return body


def _is_plain(path: Path) -> bool:
    # A symbolic link could publish any file of the provider's.
    return path.is_file() and not path.is_symlink()


def _contributors(
    result: dict[str, Any], order: Order, admitted: Collection[tuple[str, str]]
) -> tuple[Contributor, ...]:
    """Who trained for the model: paid by this list, so it holds nobody who was not let in."""
    listed = result.get("contributors")
    pairs = [
        (each.get("participant"), each.get("agreement"))
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]
    strangers = [did for did, agreement in pairs if (did, agreement) not in admitted or did not in order.members]
    if strangers or len(set(pairs)) != len(pairs) or not pairs:
        raise SessionFailed("the coordinator's contributors are not those that were admitted")
    return tuple(Contributor(str(did), str(agreement)) for did, agreement in pairs)


def _checkpoints(result: dict[str, Any], order: Order, outputs: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Models of earlier rounds, as many as the plan keeps, that have the digest which the result names; and rounds of others.

    No session fails for these: the model is what was bought.
    """
    plan, named = order.plan(), _named(result)
    every = plan.checkpoint_every or plan.rounds + 1
    whole, lost = [], []
    for number in range(every, plan.rounds + 1, every):
        path = outputs / "checkpoints" / f"round-{number}.safetensors"
        if number in named and _is_whole(path, named[number]):
            whole.append(path.name)
        elif number in named:
            logger.warning("the checkpoint of round %d of %s is damaged, and left out", number, order.session)
            lost.append(number)
    return tuple(whole), tuple(lost)


def _named(result: dict[str, Any]) -> dict[int, Any]:
    """Digests of checkpoints by round; None for those that the coordinator lost itself."""
    listed, lost = result.get("checkpoints"), result.get("checkpoints_lost")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    gone = [number for number in lost if isinstance(number, int)] if isinstance(lost, list) else []
    digests = {row["round"]: row.get("sha256") for row in rows if isinstance(row.get("round"), int)}
    return dict.fromkeys(gone) | digests


def _is_whole(checkpoint: Path, digest: Any) -> bool:
    try:
        return not checkpoint.parent.is_symlink() and _is_plain(checkpoint) and sha256_file(checkpoint) == digest
    except OSError:
        return False  # the disk does not give it back


def _metrics(result: dict[str, Any], order: Order) -> dict[str, float]:
    history = result.get("history")
    last = history[-1] if isinstance(history, list) and history else {}
    found = last.get("metrics") if isinstance(last, dict) else None
    values = found if isinstance(found, dict) else {}
    return {
        metric.name: float(values[metric.name])
        for metric in order.plan().metrics
        if isinstance(values.get(metric.name), int | float) and math.isfinite(values[metric.name])
    }
