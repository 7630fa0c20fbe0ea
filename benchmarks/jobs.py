"""The folders of a session's jobs, as launchers would have left them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.market import SESSION
from nevermined_fl.files import write_json
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.tokens import JobKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.market import Market, Purchase
    from nevermined_fl.session import Plan


@dataclass(frozen=True, slots=True)
class Jobs:
    """The folders: the coordinator's and each participant's."""

    coordinator: Path
    participants: tuple[Path, ...]
    port: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the coordinator listens on 127.0.0.1, and under which address participants see it."""

    port: int
    tls: bool
    host: str = "127.0.0.1"
    public_port: int = 0

    def url(self) -> str:
        """As participants get it."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.public_port or self.port}"


def lay_out(
    folder: Path, market: Market, plan: Plan, endpoint: Endpoint, *, initial: Path, jobs: Sequence[dict[str, Any]]
) -> Jobs:
    """Write everything that the jobs of this session read.

    Args:
        folder: where to.
        market: where everybody paid.
        plan: what is done.
        endpoint: the coordinator's.
        initial: the plan's initial model, which goes to the coordinator.
        jobs: what each participant's trainer reads.
    """
    coordinator, everybody = folder / "coordinator", folder / "participants"
    coordinator.mkdir()
    everybody.mkdir()
    initial.rename(coordinator / "initial.safetensors")
    said = {"parameters": plan.to_parameters(), "members": list(plan.members)}
    write_json(everybody / "plan.json", said)
    listen = {"kind": "coordinator", "session": SESSION, "host": "127.0.0.1", "port": endpoint.port}
    write_json(coordinator / "job.json", said | listen | {"listen_url": endpoint.url()})
    certificate = ensure_certificate(coordinator, "127.0.0.1")
    seen = {"url": endpoint.url(), "tls": endpoint.tls}
    seen |= {"certificate": certificate.pem, "fingerprint": certificate.fingerprint}
    folders = [
        _lay_out_participant(everybody / str(index), market, purchase, seen | job)
        for index, (purchase, job) in enumerate(zip(market.purchases, jobs, strict=True))
    ]
    return Jobs(coordinator, tuple(folders), endpoint.port)


def _lay_out_participant(folder: Path, market: Market, purchase: Purchase, job: dict[str, Any]) -> Path:
    folder.mkdir()
    key = JobKey.create()
    key.save(folder / "job.key")
    token = market.token(purchase, key)
    write_json(folder / "job.json", job | {"session": SESSION, "participant": purchase.did, "token": token})
    return folder
