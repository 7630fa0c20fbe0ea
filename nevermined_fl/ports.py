"""The outside world as Protocols: what the core and the shells need, said once.

Rule 1: no adapter's type appears here. DIDs are ``did:nv:<64 hex>``, agreement and condition ids ``0x<64 hex>``,
addresses EIP-55 checksummed, prices integers in the token's smallest unit, times Unix seconds, blocks block numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nevermined_fl.messages import Evaluated, Joined, JoinRequest, Report, Task, Verdict

__all__ = [
    "Account",
    "Admission",
    "Admitted",
    "Agreement",
    "Backend",
    "Chain",
    "Condition",
    "ConditionState",
    "CoordinatorLink",
    "JobSpec",
    "JobState",
    "Metadata",
    "ProvenanceEdge",
    "Registration",
    "SessionService",
    "UpdateSink",
]


# --- chain: who owns what, who paid for what ---------------------------------------------------------------------


class ConditionState(IntEnum):
    """``ConditionStoreLibrary.ConditionState`` of the Nevermined contracts."""

    UNINITIALIZED = 0
    UNFULFILLED = 1
    FULFILLED = 2
    ABORTED = 3


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an agreement as the ConditionStoreManager holds it.

    ``timelock`` and ``timeout`` are blocks counted from ``created``, the block of createAgreement; 0 means none.
    """

    id: str
    state: ConditionState
    timelock: int
    timeout: int
    created: int

    def expires(self) -> int | None:
        """The last block in which it can be fulfilled; None when it never expires."""
        return self.created + self.timeout if self.timeout else None


@dataclass(frozen=True, slots=True)
class Agreement:
    """An agreement of the EscrowComputeExecutionTemplate, with its three conditions."""

    id: str
    did: str
    consumer: str
    template: str
    template_approved: bool
    compute: Condition
    lock: Condition
    escrow: Condition

    def state(self) -> str:
        """``unpaid``, ``locked``, ``paid``, ``refunded`` or ``aborted`` (timed out, money still in escrow)."""
        if self.lock.state != ConditionState.FULFILLED:
            return "unpaid"
        if self.escrow.state == ConditionState.FULFILLED:
            return "paid" if self.compute.state == ConditionState.FULFILLED else "refunded"
        return "aborted" if self.compute.state == ConditionState.ABORTED else "locked"


@dataclass(frozen=True, slots=True)
class Registration:
    """What the DIDRegistry says of a DID. ``checksum`` is ``0x<64 hex>``."""

    did: str
    owner: str
    checksum: str
    url: str
    providers: tuple[str, ...]
    block: int


@dataclass(frozen=True, slots=True)
class ProvenanceEdge:
    """One provenance event: ``used``, ``wasDerivedFrom`` or ``wasAssociatedWith``."""

    relation: str
    did: str
    other: str
    agent: str
    activity: str
    block: int


@runtime_checkable
class Account(Protocol):
    """A key that signs transactions; made by ``nevermined_fl.keys``."""

    @property
    def address(self) -> str:
        """EIP-55 checksummed address."""
        ...


class Chain(Protocol):
    """Reads and writes of the Nevermined contracts. Every method may raise ChainError."""

    @property
    def generation(self) -> int:
        """1 for contracts 1.x, 2 for 2.x and later."""
        ...

    def block_number(self) -> int:
        """The newest block."""
        ...

    def block_seconds(self) -> float:
        """Seconds between blocks, measured over recent blocks; at least 0.1."""
        ...

    def contract_address(self, name: str) -> str:
        """Address of a contract by its Nevermined name, e.g. ``EscrowPaymentCondition``."""
        ...

    # DIDs
    def registration(self, did: str) -> Registration | None:
        """The DID's entry, or None."""
        ...

    def compute_did(self, seed: str, owner: str) -> str:
        """``keccak256(abi.encode(seed, owner))`` as a DID."""
        ...

    def register(self, account: Account, *, seed: str, checksum: str, url: str, providers: Sequence[str] = ()) -> str:
        """registerAttribute; returns the DID. Registering the same again by the same owner is no error."""
        ...

    def transfer_ownership(self, account: Account, did: str, new_owner: str) -> None:
        """transferDIDOwnership; by the owner alone."""
        ...

    def grant_permission(self, account: Account, did: str, grantee: str) -> None:
        """Download alone; a listed provider could also fulfil agreements (reference section 9)."""
        ...

    def may_download(self, did: str, address: str) -> bool:
        """AccessCondition.checkPermissions: owner, provider, grantee or a fulfilled access agreement."""
        ...

    # money
    def balance(self, address: str) -> int:
        """Tokens of an address, in the smallest unit."""
        ...

    def token_decimals(self) -> int:
        """Decimals of the token."""
        ...

    # agreements of the EscrowComputeExecutionTemplate
    def agreement(self, agreement_id: str) -> Agreement | None:
        """The agreement with its conditions, or None."""
        ...

    def expected_conditions(
        self, agreement_id: str, *, did: str, consumer: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> tuple[str, str, str]:
        """Ids of (compute, lock, escrow) recomputed from a DDO's terms."""
        ...

    def create_agreement(
        self,
        account: Account,
        *,
        did: str,
        amounts: Sequence[int],
        receivers: Sequence[str],
        timeout: int,
        consumer: str | None = None,
        timelocks: tuple[int, int, int] = (0, 0, 0),
        timeouts: tuple[int, int, int] | None = None,
    ) -> str:
        """createAgreement; returns its id. ``timeout`` is the compute condition's, in blocks.

        ``timelocks`` and ``timeouts`` are (compute, lock, escrow); tests use them to make hostile agreements.
        """
        ...

    def lock_payment(
        self, account: Account, agreement_id: str, *, did: str, amounts: Sequence[int], receivers: Sequence[str]
    ) -> None:
        """Approve the token and LockPaymentCondition.fulfill. Locking again is no error."""
        ...

    def fulfill_compute(self, account: Account, agreement_id: str, *, did: str, consumer: str) -> ConditionState:
        """ComputeExecutionCondition.fulfill; the state it left: ABORTED when it came too late."""
        ...

    def release(
        self,
        account: Account,
        agreement_id: str,
        *,
        did: str,
        amounts: Sequence[int],
        receivers: Sequence[str],
        consumer: str,
    ) -> None:
        """EscrowPaymentCondition.fulfill: pays the receivers, or refunds the consumer after an abort."""
        ...

    def abort_by_timeout(self, account: Account, agreement_id: str) -> None:
        """ComputeExecutionCondition.abortByTimeOut; ChainError(reverted) when it has not timed out."""
        ...

    def agreements_of(self, consumer: str) -> tuple[str, ...]:
        """Ids of the agreements that name ``consumer``, oldest first."""
        ...

    # provenance
    def used(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the activity used ``did``; by its owner or provider alone."""
        ...

    def was_derived_from(self, account: Account, *, new: str, source: str, activity: str) -> None:
        """Provenance: ``new`` derives from ``source``; by the owner or provider of ``source`` alone."""
        ...

    def was_associated_with(self, account: Account, *, did: str, activity: str) -> None:
        """Provenance: the account took part in making ``did``; by its owner alone, so before a transfer."""
        ...

    def provenance(self, did: str) -> tuple[ProvenanceEdge, ...]:
        """All edges in which ``did`` stands on either side, oldest first."""
        ...


# --- metadata: DDOs by DID ---------------------------------------------------------------------------------------


class Metadata(Protocol):
    """Where DDOs are published and found. Every method may raise MetadataError."""

    def publish(self, ddo: Mapping[str, Any]) -> None:
        """Publish; the same DDO again is no error, another one under its DID is Conflict."""
        ...

    def resolve(self, did: str) -> dict[str, Any]:
        """The DDO, checked: its DID recomputes from its checksums. Raises NotFound."""
        ...

    def search(self, text: str, *, page: int = 1, size: int = 100) -> list[dict[str, Any]]:
        """DDOs that match the words, best first."""
        ...


# --- backend: runs jobs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job, without secrets: those are files (0600) in ``folder``.

    ``folder`` is the job's own read-write working folder. ``read_only`` maps a name to a host path that the job sees
    under the path in the environment variable of that name, read-only. ``sockets`` are unix sockets that the job may
    connect to. ``entrypoint`` is a Python module of ours (``participant_image`` or ``coordinator_image``).
    """

    id: str
    entrypoint: str
    folder: Path
    read_only: Mapping[str, Path] = field(default_factory=dict)
    sockets: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    listen: tuple[str, int] | None = None
    image: str = ""
    memory: int = 2 * 1024**3
    cpu_seconds: int = 3600
    processes: int = 256


@dataclass(frozen=True, slots=True)
class JobState:
    """Status words are Argo's: Pending, Running, Succeeded, Failed, Error. Times are Unix seconds."""

    status: str
    exit_code: int | None = None
    started: float | None = None
    finished: float | None = None
    isolation: str = ""

    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.status in {"Succeeded", "Failed", "Error"}


class Backend(Protocol):
    """Runs jobs. Every method may raise BackendError; all but submit accept only ids that submit returned."""

    @property
    def isolation(self) -> str:
        """``bubblewrap``, ``none`` ...: what the provider's status says about it."""
        ...

    def submit(self, spec: JobSpec) -> str:
        """Start it, or take it over from an earlier process of the launcher; returns the backend's handle."""
        ...

    def state(self, handle: str) -> JobState:
        """How it is doing."""
        ...

    def logs(self, handle: str) -> bytes:
        """Raw output, for the provider's eyes only; the last MiB."""
        ...

    def stop(self, handle: str, *, grace: float = 0.0) -> None:
        """End it with everything it started: asked to (SIGTERM), and killed after ``grace`` seconds. Over is no error."""
        ...


# --- wire: participant <-> coordinator ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may take part: the participant's id is its dataset's DID."""

    participant: str
    agreement: str
    thumbprint: str


class Admission(Protocol):
    """Decides who may join a session (``chain=memory`` in simulations, the launcher over a socket in jobs)."""

    async def admit(self, token: str) -> Admitted:
        """Check a join token. Raises PermissionDenied naming the check that failed."""
        ...


class UpdateSink(Protocol):
    """Where an update's bytes go; resumable. All methods may raise RemoteProtocolError, or StorageFull."""

    @property
    def offset(self) -> int:
        """Bytes received so far: where a resumed upload goes on."""
        ...

    def write(self, block: bytes | memoryview) -> None:
        """Append a block."""
        ...

    def commit(self) -> None:
        """Check size and digest, and that the body matches the plan's model schema and is finite."""
        ...


class SessionService(Protocol):
    """The coordinator's side of a transport: the driver implements it, transports call it.

    ``participant`` is what the transport authenticated: the id that ``join`` returned. Every method that changes
    something may raise StorageFull: then nothing changed, and the same request is welcome later.
    """

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        ...

    async def next_task(self, participant: str, *, after: int, wait: float) -> Task:
        """The first task with ``seq > after``; waits up to ``wait`` seconds and then returns a Wait task."""
        ...

    def model_path(self, digest: str, *, participant: str = "") -> Path:
        """File with the model of that digest, in safetensors layout. Raises NotFound.

        ``participant`` is who asks; it is for the status alone.
        """
        ...

    def delta_path(self, base: str, digest: str, *, participant: str = "") -> Path:
        """File with what changes model ``base`` into ``digest``, in the plan's precision. Raises NotFound."""
        ...

    def fetched(self, participant: str) -> None:
        """Its download went out to the last byte."""
        ...

    def open_update(self, participant: str, *, round_number: int, digest: str, size: int) -> UpdateSink:
        """Start or go on with an upload of ``size`` bytes."""
        ...

    async def report(self, participant: str, signed: str) -> Verdict:
        """``signed`` is a Report as a JWS of the key that joined."""
        ...

    async def evaluated(self, participant: str, signed: str) -> Verdict:
        """``signed`` is an Evaluated as a JWS of the key that joined."""
        ...

    async def leave(self, participant: str) -> None:
        """It will not answer any more, until it joins again: do not wait for it."""
        ...


class CoordinatorLink(Protocol):
    """The participant's side of a transport. Methods retry by themselves until ``patience`` runs out (TransportError)."""

    async def join(self, request: JoinRequest) -> Joined:
        """Take part, or take part again after a crash."""
        ...

    async def next_task(self, *, after: int, wait: float) -> Task:
        """As SessionService.next_task."""
        ...

    async def fetch_model(self, digest: str, into: Path) -> None:
        """Download (resuming), check the digest, and rename into place."""
        ...

    async def fetch_delta(self, base: str, digest: str, into: Path) -> None:
        """Download the change from one model to another. Raises NotFound: fetch the model instead.

        What is made of it must have the digest: nothing else names a change, so the caller checks the model.
        """
        ...

    async def send_update(self, *, round_number: int, digest: str, path: Path) -> None:
        """Upload (resuming where the coordinator has got to)."""
        ...

    async def report(self, report: Report) -> Verdict:
        """Sign and send."""
        ...

    async def evaluated(self, evaluated: Evaluated) -> Verdict:
        """Sign and send."""
        ...

    async def leave(self) -> None:
        """Say that no answer will come any more."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
