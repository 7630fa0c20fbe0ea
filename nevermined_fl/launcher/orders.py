"""Orders: may this agreement run here now, and what is to be done? The last door before anything happens.

The gateway asks the chain, too. The launcher does not rely on it, so that an upstream gateway, which checks less, may
stand in front; and it alone knows what else runs and which algorithms its provider approved.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from nevermined_fl import assets, permissions
from nevermined_fl.errors import InvalidRequest, PermissionDenied
from nevermined_fl.keys import checksum_address
from nevermined_fl.launcher.initial import initial_file
from nevermined_fl.launcher.order import Order, RemoteFile
from nevermined_fl.launcher.store import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.permissions import Grant

__all__ = ["accept", "request_review"]

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def accept(launcher: Launcher, body: Mapping[str, Any]) -> Job:
    """A new job, kept in the store.

    Raises:
        RequestError: ``check`` is one of permissions.CHECKS, or buyer_allowed, image_allowed, plan_allowed, dataset_here,
            algorithm_approved, initial_model_here, initial_asset_file, agreement_spent, one_live_execution,
            one_live_session.
        TransportError: the chain or the metadata API did not answer.
    """
    agreement, workflow = _text(body, "serviceAgreementId").lower(), body.get("workflow")
    if not isinstance(workflow, dict):
        raise InvalidRequest("workflow should be a DDO", check="workflow_given")
    consumer = _consumer(launcher, agreement, body)
    _check_buyer(launcher, consumer)
    # Looked at before the chain is: an execution that ends while we ask would else leave its agreement for another run.
    ended = [job for job in launcher.store.of_agreement(agreement) if job.finished is not None]
    grant = permissions.check_execution(
        launcher.chain,
        launcher.metadata,
        agreement_id=agreement,
        caller=consumer,
        workflow_did=str(body.get("workflowDid") or workflow.get("id")),
        provider=(launcher.account.address,),
        min_blocks_left=launcher.settings.policy.min_blocks_left,
    )
    _check_image(launcher, grant)
    _check_plan(launcher, grant)
    _check_spent(grant, ended)
    order = _order(launcher, grant, consumer)
    name = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    job = Job(id=f"nvm-fl-{name}", order=order, created=launcher.clock(), payment=grant.agreement.state())
    launcher.store.add(job, ended=len(ended))
    return job


def request_review(
    launcher: Launcher, algorithm: str, *, workflow: str = "", requested_by: str = ""
) -> tuple[RemoteFile, str]:
    """Put an algorithm before the provider; its Trainer's file and what the provider thinks of it so far."""
    trainer, initial = _algorithm(launcher, algorithm)
    found = launcher.approvals.request(
        trainer.digest,
        algorithm=algorithm,
        initial_model=initial.digest if initial else "",
        workflow=workflow,
        requested_by=requested_by,
    )
    return trainer, found.state


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 100:
        raise InvalidRequest(f"{name} should be a text", check=f"{name}_given")
    return value


def _consumer(launcher: Launcher, agreement: str, body: Mapping[str, Any]) -> str:
    """Who asks, said the gateway; upstream gateways do not say and asked the chain, so the buyer himself is meant."""
    if "consumer" in body:
        try:
            return checksum_address(_text(body, "consumer"))
        except ValueError as error:
            raise InvalidRequest("consumer should be an address", check="consumer_given") from error
    found = launcher.chain.agreement(agreement)
    if found is None:
        raise PermissionDenied(f"no agreement {agreement} on chain", check="agreement_exists")
    return found.consumer


def _check_buyer(launcher: Launcher, consumer: str) -> None:
    buyers = {buyer.lower() for buyer in launcher.settings.policy.buyers}
    if "*" not in buyers and consumer.lower() not in buyers:
        raise PermissionDenied(
            f"this provider's policy does not name {consumer}", check="buyer_allowed", hint="ask the provider"
        )


def _check_image(launcher: Launcher, grant: Grant) -> None:
    image, allowed = assets.container(grant.workflow).image, launcher.settings.policy.images
    if image not in allowed:
        raise PermissionDenied(
            f"this provider does not run {image}", check="image_allowed", hint=f"it runs {', '.join(allowed)}"
        )


def _check_plan(launcher: Launcher, grant: Grant) -> None:
    """A bound of 0 is none."""
    policy, plan = launcher.settings.policy, grant.plan
    kept = plan.rounds // plan.checkpoint_every if plan.checkpoint_every and grant.kind == "coordinator" else 0
    for name, asked, most in (
        ("rounds", plan.rounds, policy.max_rounds),
        ("bytes of tensors", plan.model_size(), policy.max_model_bytes),
        ("bytes of checkpoints", kept * plan.model_size(), policy.max_model_bytes),
        ("seconds at its slowest", plan.max_duration(), policy.max_session_seconds),
    ):
        if most and asked > most:
            raise PermissionDenied(
                f"the plan has {asked:.15g} {name}; this provider allows {most}",
                check="plan_allowed",
                hint="plan for less, or ask the provider for more",
            )


def _check_spent(grant: Grant, over: Sequence[Job]) -> None:
    """One agreement, one execution; without a timeout there is no refund either, so then it may be tried again."""
    if over and grant.agreement.compute.timeout:
        raise PermissionDenied(
            f"this agreement ran as {over[-1].id}, which is over",
            check="agreement_spent",
            hint="order again; nevermined-fl refund returns the money of a session that failed",
        )


def _order(launcher: Launcher, grant: Grant, consumer: str) -> Order:
    file, examples = (
        _participant(launcher, grant) if grant.kind == "participant" else (initial_file(launcher, grant), 0)
    )
    return Order(
        kind=grant.kind,
        agreement=grant.agreement.id,
        did=grant.did,
        session=grant.session_did,
        compute=grant.session.compute,
        workflow=grant.workflow_did,
        consumer=consumer,
        members=tuple(grant.session.datasets),
        parameters=dict(grant.session.parameters),
        amounts=tuple(grant.terms.amounts),
        receivers=tuple(grant.terms.receivers),
        file=file,
        examples=examples,
    )


def _participant(launcher: Launcher, grant: Grant) -> tuple[RemoteFile, int]:
    if launcher.dataset(grant.did) is None:
        raise PermissionDenied(f"{grant.did} is not among this provider's datasets", check="dataset_here")
    algorithm = assets.algorithm_did(grant.workflow)
    trainer, _ = _algorithm(launcher, algorithm)
    if not launcher.approvals.is_approved(trainer.digest):
        request_review(launcher, algorithm, workflow=grant.workflow_did, requested_by=grant.agreement.consumer)
        raise PermissionDenied(
            f"the provider has not approved the algorithm {trainer.digest}",
            check="algorithm_approved",
            hint="the request is before the provider now; try again once it is approved",
        )
    return trainer, assets.dataset_schema(launcher.metadata.resolve(grant.did)).rows


def _algorithm(launcher: Launcher, did: str) -> tuple[RemoteFile, RemoteFile | None]:
    """Trainer and, if it has one, initial model of an algorithm, as its DDO names them."""
    ddo = launcher.metadata.resolve(did)
    assets.verify_integrity(ddo, launcher.chain.compute_did)
    gateway, (trainer, initial) = assets.gateway_url(ddo), assets.algorithm_files(ddo)
    remote = partial(_remote, did, gateway)
    return remote(0, trainer), remote(1, initial) if initial else None


def _remote(did: str, gateway: str, index: int, file: assets.FileEntry) -> RemoteFile:
    return RemoteFile(did=did, index=index, gateway=gateway, digest=f"sha256:{file.sha256}", size=file.size)
