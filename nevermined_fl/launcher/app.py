"""App: the launcher over HTTP: the compute API's paths, and ours under /fl. For the provider's own gateway alone."""

from __future__ import annotations

import hmac
import json
import logging
import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from nevermined_fl import __version__
from nevermined_fl.errors import InvalidRequest, NeverminedFLError, RequestError, TransportError, Unauthenticated
from nevermined_fl.launcher import views
from nevermined_fl.launcher.fetch import fetch
from nevermined_fl.launcher.jobs import Jobs
from nevermined_fl.launcher.launcher import Launcher
from nevermined_fl.launcher.orders import request_review

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["COMPUTE", "JOBS", "LAUNCHER", "create_app"]

logger = logging.getLogger(__name__)
COMPUTE = "/api/v1/nevermined-compute-api"
LAUNCHER = web.AppKey("launcher", Launcher)
JOBS = web.AppKey("jobs", Jobs)
_BODY_BYTES = 2 * 1024**2
_LONGEST_POLL = 30.0
_DID = re.compile(r"did:nv:[0-9a-f]{64}")


def create_app(launcher: Launcher, *, secret: str) -> web.Application:
    """The application; every request needs the bearer ``secret``."""
    application = web.Application(middlewares=[_errors, _guard(secret)], client_max_size=_BODY_BYTES)
    application[LAUNCHER] = launcher
    application[JOBS] = Jobs(launcher)
    application.router.add_get("/", _root)
    application.router.add_post(f"{COMPUTE}/init", _init)
    application.router.add_get(f"{COMPUTE}/list", _list)
    application.router.add_get(f"{COMPUTE}/info/{{id}}", _info)
    application.router.add_get(f"{COMPUTE}/status/{{id}}", _status)
    application.router.add_get(f"{COMPUTE}/logs/{{id}}", _logs)
    application.router.add_delete(f"{COMPUTE}/stop/{{id}}", _stop)
    application.router.add_get("/fl/sessions/{did}/record", _record)
    application.router.add_get("/fl/approvals", _approvals)
    application.router.add_post("/fl/reviews", _review)
    application.on_startup.append(_resume)
    application.on_shutdown.append(_end)
    return application


async def _resume(application: web.Application) -> None:
    application[JOBS].resume()


async def _end(application: web.Application) -> None:
    await application[JOBS].close()
    await application[LAUNCHER].web.close()


# --- every request -----------------------------------------------------------------------------------------------


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return web.json_response(error.to_json(), status=error.status)
    except web.HTTPException as error:
        body = {"error": type(error).__name__, "check": "request", "message": error.reason}
        return web.json_response(body, status=error.status)
    except TransportError as error:
        return web.json_response({"error": "Unreachable", "check": "unreachable", "message": error.message}, status=503)
    except NeverminedFLError as error:
        logger.exception("%s %s", request.method, request.path)
        return web.json_response(
            {"error": type(error).__name__, "check": "launcher", "message": error.message}, status=500
        )


def _guard(secret: str) -> Any:
    expected = f"Bearer {secret}".encode()

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, expected):
            raise Unauthenticated("this launcher serves its provider's gateway alone", check="launcher_secret")
        return await handler(request)

    return guard


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the body is not JSON", check="body_json") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body should be a JSON object", check="body_json")
    return body


# --- compute API -------------------------------------------------------------------------------------------------


async def _root(request: web.Request) -> web.Response:
    launcher = request.app[LAUNCHER]
    jobs = {"live": len(launcher.store.live()), "all": len(launcher.store.all())}
    return web.json_response(
        {
            "software": "nevermined-fl-launcher",
            "version": __version__,
            "isolation": launcher.backend.isolation,
            "provider-address": launcher.account.address,
            "jobs": jobs,
        }
    )


async def _init(request: web.Request) -> web.Response:
    job = await request.app[JOBS].start(await _object(request))
    return web.Response(text=job.id)


async def _list(request: web.Request) -> web.Response:
    """Ids of all executions, or of those of one agreement."""
    store, agreement = request.app[LAUNCHER].store, request.query.get("agreement")
    jobs = store.all() if agreement is None else store.of_agreement(agreement.lower())
    return web.json_response([job.id for job in jobs])


async def _info(request: web.Request) -> web.Response:
    return web.json_response(views.info(request.app[LAUNCHER].store.get(request.match_info["id"])))


async def _status(request: web.Request) -> web.Response:
    launcher = request.app[LAUNCHER]
    job = launcher.store.get(request.match_info["id"])
    return web.json_response(await launcher.call(views.status, launcher, job))


async def _logs(request: web.Request) -> web.Response:
    launcher = request.app[LAUNCHER]
    job = launcher.store.get(request.match_info["id"])
    return web.json_response(await launcher.call(views.logs, launcher, job))


async def _stop(request: web.Request) -> web.Response:
    request.app[JOBS].stop(request.match_info["id"])
    return web.Response(text="Successfully delete")


# --- ours --------------------------------------------------------------------------------------------------------


async def _record(request: web.Request) -> web.Response:
    session = _did(request.match_info["did"])
    after, wait = int(_number(request, "after")), min(_number(request, "wait"), _LONGEST_POLL)
    found = await request.app[LAUNCHER].records.newer(session, after=after, wait=wait)
    if found is None:
        return web.Response(status=204)
    return web.json_response({"record": found[1], "seq": found[0]})


async def _approvals(request: web.Request) -> web.Response:
    launcher = request.app[LAUNCHER]
    rows = [asdict(row) | {"fetched": launcher.content.has(row.digest)} for row in launcher.approvals.list()]
    return web.json_response(rows)


async def _review(request: web.Request) -> web.Response:
    """Ask for a review, and fetch the algorithm's file so that the provider has something to read."""
    launcher, body = request.app[LAUNCHER], await _object(request)
    algorithm, workflow = _did(body.get("algorithm")), body.get("workflow")
    asker = str(body.get("requestedBy") or "")[:42]
    named = _did(workflow) if workflow else ""
    trainer, state = await launcher.call(request_review, launcher, algorithm, workflow=named, requested_by=asker)
    try:
        await fetch(launcher, trainer)
    except NeverminedFLError as error:
        # Perhaps the permission to download comes later; the digest can be judged without.
        logger.warning("algorithm %s could not be fetched for review: %s", algorithm, error)
    answer = {"digest": trainer.digest, "state": state, "algorithm": algorithm}
    return web.json_response(answer | {"fetched": launcher.content.has(trainer.digest)})


def _did(text: object) -> str:
    if not isinstance(text, str) or not _DID.fullmatch(text):
        raise InvalidRequest("expected a DID, did:nv: and 64 hex digits", check="id_format")
    return text


def _number(request: web.Request, name: str) -> float:
    try:
        value = float(request.query.get(name, "0"))
    except ValueError:
        value = math.nan
    if not 0 <= value < 2**53:
        raise InvalidRequest(f"{name} should be a number of at least 0", check="number_format")
    return value
