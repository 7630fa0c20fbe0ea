"""What came of a session: its signed record, the payments, the provenance, and the model itself?"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nevermined_fl import assets
from nevermined_fl.errors import Conflict, DecodeError, NotFound
from nevermined_fl.files import sha256_file
from nevermined_fl.tokens import verify_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nevermined_fl.marketplace.market import Market
    from nevermined_fl.ports import ProvenanceEdge
    from nevermined_fl.tokens import SessionRecord

__all__ = ["Fetched", "Payment", "fetch", "newest_record", "payments", "provenance"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched model: its folder, its file in safetensors layout, and that file's ``sha256:<hex>``."""

    did: str
    folder: Path
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Payment:
    """What became of one agreement. ``state`` is ``unpaid``, ``locked``, ``paid``, ``refunded`` or ``aborted``."""

    agreement: str
    did: str
    price: int
    state: str


def newest_record(market: Market, session: str, *, after: int = 0, wait: float = 0.0) -> SessionRecord | None:
    """The session's newest record above number ``after``, its signer checked on chain; None when there is none yet.

    Raises:
        Unauthenticated: somebody else than the compute provider signed it.
    """
    compute = assets.session_spec(market.metadata.resolve(session)).compute
    signed = market.gateway_of(compute).record(session, after=after, wait=wait)
    if signed is None:
        return None
    registration = market.chain.registration(compute)
    if registration is None:
        raise NotFound(f"{compute} is not registered on chain", check="did_registered")
    return verify_record(signed, session=session, expected={registration.owner, *registration.providers})


def payments(market: Market, agreements: Iterable[str]) -> tuple[Payment, ...]:
    """State of each agreement as the chain has it.

    Raises:
        NotFound: an agreement is not on chain.
    """
    found = []
    for agreement_id in agreements:
        agreement = market.chain.agreement(agreement_id)
        if agreement is None:
            raise NotFound(f"no agreement {agreement_id} on chain", check="agreement_exists")
        price = assets.compute_terms(market.metadata.resolve(agreement.did)).price()
        found.append(Payment(agreement_id, agreement.did, price, agreement.state()))
    return tuple(found)


def provenance(market: Market, model: str) -> tuple[ProvenanceEdge, ...]:
    """The edges of a model's session that may be believed: both ends belong to the session, the activity is it.

    Anybody may claim that his asset is a source of any model; such edges are left out.
    """
    session = assets.session_of(market.metadata.resolve(model))
    spec = assets.session_spec(market.metadata.resolve(session))
    members = {model, session, *spec.datasets}
    activity = session.removeprefix("did:nv:")
    edges = {edge for did in (model, *spec.datasets) for edge in market.chain.provenance(did)}
    believed = [e for e in edges if e.did in members and (not e.other or e.other in members) and activity in e.activity]
    return tuple(sorted(believed, key=lambda edge: (edge.block, edge.relation, edge.did)))


def fetch(market: Market, did: str, into: Path | str) -> Fetched:
    """Download a model with its card into ``into/<first 12 digits of its DID>``, whole or not at all.

    Raises:
        DecodeError: a file has not the digest that its DDO publishes.
        Conflict: another model lies in that folder.
    """
    ddo = market.metadata.resolve(did)
    files, gateway = assets.files(ddo), market.gateway(assets.gateway_url(ddo))
    folder = Path(into).resolve() / did.removeprefix("did:nv:")[:12]
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as name:
            whole = Path(name) / "model"
            whole.mkdir()
            for index, entry in enumerate(files):
                gateway.download(did, index, whole / entry.name, max_bytes=entry.size)
            _check(whole, files)
            whole.rename(folder)
    try:
        _check(folder, files)
    except (DecodeError, OSError) as error:
        raise Conflict(f"{folder} holds something else than {did}", hint="choose another folder with --into") from error
    return Fetched(did, folder, folder / files[0].name, f"sha256:{files[0].sha256}")


def _check(folder: Path, files: Sequence[assets.FileEntry]) -> None:
    for entry in files:
        digest = sha256_file(folder / entry.name)
        if digest != f"sha256:{entry.sha256}":
            raise DecodeError(f"{entry.name} has {digest}; its DDO publishes sha256:{entry.sha256}", code="digest")
