"""Admission: who may join a session that runs here? Asked by the coordinator over a unix socket, answered from the chain.

The coordinator has no chain access and no key; it learns who a token's bearer is, and which key he signs with.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from nevermined_fl.errors import InvalidRequest, PermissionDenied, RequestError, TransportError
from nevermined_fl.launcher.sockets import bound_unix
from nevermined_fl.ports import Admitted, ConditionState
from nevermined_fl.tokens import verify_join_token

if TYPE_CHECKING:
    from pathlib import Path

    from nevermined_fl.launcher.launcher import Launcher
    from nevermined_fl.launcher.order import Order
    from nevermined_fl.ports import Chain
    from nevermined_fl.tokens import JoinToken

__all__ = ["AdmissionServer", "admit"]

logger = logging.getLogger(__name__)
_TEMPLATE = "EscrowComputeExecutionTemplate"
_BODY_BYTES = 64 * 1024


def admit(chain: Chain, order: Order, token: str, *, now: float) -> Admitted:
    """Check a join token against the session's DDO and the chain.

    Raises:
        RequestError: ``check`` is a token_… check, dataset_listed, agreement_exists, agreement_for_dataset,
            consumer_owns_session, template_approved, lock_fulfilled or not_settled.
    """

    def signers(did: str) -> set[str]:
        if did not in order.members:
            raise PermissionDenied(f"the session does not list {did[:80]}", check="dataset_listed")
        found = chain.registration(did)
        return {found.owner, *found.providers} if found else set()

    found = verify_join_token(token, signers=signers, session=order.session, now=now)
    _check_agreement(chain, order, found)
    return Admitted(participant=found.did, agreement=found.agreement, thumbprint=found.thumbprint)


def _check_agreement(chain: Chain, order: Order, token: JoinToken) -> None:
    agreement = chain.agreement(token.agreement)
    if agreement is None:
        raise PermissionDenied(f"no agreement {token.agreement[:80]} on chain", check="agreement_exists")
    # Anybody can pay an agreement on his own DID that names somebody else as its consumer: all of it must fit.
    if agreement.did != token.did:
        raise PermissionDenied(
            f"the agreement is about {agreement.did}, not {token.did}", check="agreement_for_dataset"
        )
    if agreement.consumer != order.consumer:
        raise PermissionDenied("the agreement's consumer does not own the session", check="consumer_owns_session")
    if agreement.template != chain.contract_address(_TEMPLATE) or not agreement.template_approved:
        raise PermissionDenied("the agreement is not of the approved compute template", check="template_approved")
    if agreement.lock.state != ConditionState.FULFILLED:
        raise PermissionDenied("the agreement is not paid", check="lock_fulfilled")
    if agreement.compute.state != ConditionState.UNFULFILLED:
        raise PermissionDenied(f"the agreement is {agreement.state()} already", check="not_settled")


class AdmissionServer:
    """``POST /admissions {"token": …}`` at ``path``, for one job."""

    def __init__(self, launcher: Launcher, job_id: str, order: Order, path: Path) -> None:
        self._launcher = launcher
        self._job_id = job_id
        self._order = order
        self._path = path
        application = web.Application(client_max_size=_BODY_BYTES)
        application.router.add_post("/admissions", self._answer)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        with bound_unix(self._path) as sock:
            await web.SockSite(self._runner, sock).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        self._path.unlink(missing_ok=True)

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            token = body.get("token") if isinstance(body, dict) else None
            if not isinstance(token, str):
                raise InvalidRequest("expected an object with a token", check="token_malformed")
            admitted = await self._launcher.call(
                admit, self._launcher.chain, self._order, token, now=self._launcher.clock()
            )
            self._launcher.store.admit(self._job_id, admitted.participant, admitted.agreement)
        except RequestError as error:
            logger.warning("refused at %s: %s", self._order.session, error)
            return web.json_response(error.to_json(), status=403)
        except ValueError:
            return web.json_response(InvalidRequest("not JSON", check="token_malformed").to_json(), status=403)
        except TransportError as error:
            return web.json_response({"error": "unreachable", "message": error.message}, status=503)
        return web.json_response(
            {"participant": admitted.participant, "agreement": admitted.agreement, "thumbprint": admitted.thumbprint}
        )
