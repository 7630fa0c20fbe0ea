"""What a benchmark is to do: how many numbers, how many participants, and the updates that lie ready for them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import jobs
from benchmarks.network import free_port
from nevermined_fl.codecs import safetensors
from nevermined_fl.digests import BLAKE3, SHA256
from nevermined_fl.digests import hasher as new_hasher
from nevermined_fl.files import digest_of
from nevermined_fl.session import Plan, TensorSchema

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.market import Market

_BLOCK = 1 << 20
_DISTINCT = 10
"""So many different updates are prepared; with more participants some send the same numbers."""
_TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True)
class Work:
    """One session: ``rounds`` of them measured, after one to warm up and before one to end.

    ``processes`` is how many processes the participants share.
    """

    params: int
    clients: int
    rounds: int
    tls: bool = False
    processes: int = 10
    plan: dict[str, Any] = field(default_factory=dict)

    def schema(self) -> tuple[TensorSchema, ...]:
        """One tensor, as in the peers' benchmarks."""
        return (TensorSchema("w", "F32", (self.params,)),)

    def theoretical_bytes(self) -> int:
        """Of one round: everybody fetches a model and sends one."""
        return 2 * self.clients * self.params * 4

    def disk_bytes(self) -> int:
        """Prepared updates, one model per participant, spools, and the coordinator's models."""
        models = min(self.clients, _DISTINCT) + 2 * self.clients + 5
        return models * self.params * 4


def lay_out(work: Work, market: Market, folder: Path) -> jobs.Jobs:
    """Prepare the session's models and write its jobs' folders."""
    [initial] = prepare_model(folder / "initial.safetensors", work.schema(), seed=0, variants=1)
    updates = _prepare_updates(work, folder / "updates")
    ready = [
        {"update": str(path), "digests": digests, "examples": 10 + index}
        for index in range(work.clients)
        for path, digests in [updates[index % len(updates)]]
    ]
    plan = plan_of(market, work.schema(), initial, {"rounds": work.rounds + 2} | work.plan)
    endpoint = jobs.Endpoint(free_port(), work.tls)
    return jobs.lay_out(folder, market, plan, endpoint, initial=folder / "initial.safetensors", jobs=ready)


def plan_of(market: Market, schema: tuple[TensorSchema, ...], initial: str, parameters: dict[str, Any]) -> Plan:
    """A plan without metrics unless they are asked for, so that a round is: fetch, train, send, fold, commit."""
    members = tuple(purchase.did for purchase in market.purchases)
    plan = Plan(
        members=members,
        rounds=1,
        min_participants=len(members),
        initial_model=initial,
        schema=schema,
        selection_timeout=_TIMEOUT,
        round_timeout=_TIMEOUT,
        metrics=(),
    )
    return Plan.from_parameters(plan.to_parameters() | parameters, members)


def prepare_model(
    path: Path, schema: tuple[TensorSchema, ...], *, seed: int, variants: int, kind: str = SHA256
) -> list[str]:
    """A model of normally distributed numbers, written block by block, as its variant 0.

    Variant n has n as its last number: so every round has another model, and nobody has to digest it all again.
    Returns the variants' digests.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    hasher, rest = new_hasher(kind), sum(tensor.size() for tensor in schema) // 4 - 1
    with path.open("wb") as file:
        header = safetensors.header_bytes(schema)
        file.write(header)
        hasher.update(header)
        while rest:
            block = rng.standard_normal(min(rest, _BLOCK), np.float32).view(np.uint8).data
            file.write(block)
            hasher.update(block)
            rest -= len(block) // 4
        file.write(variant_bytes(0))
    return [_digest_with(hasher, variant_bytes(number)) for number in range(variants)]


def variant_bytes(number: int) -> bytes:
    """The last number of a variant, as it is in the file."""
    return struct.pack("<f", number)


def _digest_with(hasher: Any, tail: bytes) -> str:
    whole = hasher.copy()
    whole.update(tail)
    return digest_of(whole)


def _prepare_updates(work: Work, folder: Path) -> list[tuple[Path, list[str]]]:
    folder.mkdir()
    paths = [folder / f"{number}.safetensors" for number in range(min(work.clients, _DISTINCT))]
    schema, variants = work.schema(), work.rounds + 3
    return [
        (path, prepare_model(path, schema, seed=number + 1, variants=variants, kind=BLAKE3))
        for number, path in enumerate(paths)
    ]
