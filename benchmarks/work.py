"""What a benchmark is to do, and the folders of its jobs as launchers would have left them."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.market import SESSION
from benchmarks.network import free_port
from nevermined_fl.codecs import safetensors
from nevermined_fl.files import digest_of, write_json
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.session import Plan, TensorSchema
from nevermined_fl.tokens import JobKey

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.market import Market, Purchase

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


@dataclass(frozen=True, slots=True)
class Jobs:
    """The folders: the coordinator's and each participant's."""

    coordinator: Path
    participants: tuple[Path, ...]
    port: int


def lay_out(work: Work, market: Market, folder: Path) -> Jobs:
    """Write everything that the jobs of this session read."""
    coordinator = folder / "coordinator"
    coordinator.mkdir(parents=True)
    [initial] = prepare_model(coordinator / "initial.safetensors", work.schema(), seed=0, variants=1)
    plan = plan_of(work, market, initial)
    port, members = free_port(), list(plan.members)
    body = {"session": SESSION, "parameters": plan.to_parameters(), "members": members, "host": "127.0.0.1"}
    write_json(coordinator / "job.json", body | {"port": port, "kind": "coordinator"})
    everybody = folder / "participants"
    everybody.mkdir()
    write_json(everybody / "plan.json", {"parameters": plan.to_parameters(), "members": members})
    certificate = ensure_certificate(coordinator, "127.0.0.1")
    endpoint = {
        "url": f"{'https' if work.tls else 'http'}://127.0.0.1:{port}",
        "tls": work.tls,
        "certificate": certificate.pem,
        "fingerprint": certificate.fingerprint,
    }
    updates = _prepare_updates(work, folder / "updates")
    folders = []
    for index, purchase in enumerate(market.purchases):
        path, digests = updates[index % len(updates)]
        trained = {"update": str(path), "digests": digests, "examples": 10 + index}
        folders.append(_lay_out_participant(everybody / str(index), market, purchase, endpoint | trained))
    return Jobs(coordinator, tuple(folders), port)


def plan_of(work: Work, market: Market, initial: str) -> Plan:
    """A plan without metrics, so that a round is: fetch, train, send, fold, commit."""
    plan = Plan(
        members=tuple(purchase.did for purchase in market.purchases),
        rounds=work.rounds + 2,
        min_participants=work.clients,
        initial_model=initial,
        schema=work.schema(),
        selection_timeout=_TIMEOUT,
        round_timeout=_TIMEOUT,
        metrics=(),
    )
    return Plan.from_parameters(plan.to_parameters() | work.plan, plan.members)


def prepare_model(path: Path, schema: tuple[TensorSchema, ...], *, seed: int, variants: int) -> list[str]:
    """A model of normally distributed numbers, written block by block, as its variant 0.

    Variant n has n as its last number: so every round has another model, and nobody has to digest it all again.
    Returns the variants' digests.
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    hasher, rest = hashlib.sha256(), sum(tensor.size() for tensor in schema) // 4 - 1
    with path.open("wb") as file:
        header = safetensors.header_bytes(schema)
        file.write(header)
        hasher.update(header)
        while rest:
            block = rng.standard_normal(min(rest, _BLOCK), np.float32).data
            file.write(block)
            hasher.update(block)
            rest -= len(block)
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
        (path, prepare_model(path, schema, seed=number + 1, variants=variants)) for number, path in enumerate(paths)
    ]


def _lay_out_participant(folder: Path, market: Market, purchase: Purchase, job: dict[str, Any]) -> Path:
    folder.mkdir()
    key = JobKey.create()
    key.save(folder / "job.key")
    token = market.token(purchase, key)
    write_json(folder / "job.json", job | {"session": SESSION, "participant": purchase.did, "token": token})
    return folder
