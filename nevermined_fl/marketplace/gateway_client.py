"""How does a buyer speak with a provider's gateway: an assertion for a token, the token for a call, calls retried?

Rule 1: the audience is the whole URL of the gateway, so that no gateway can use at another what it was sent.
Rule 2: what did not reach the gateway is tried again until ``patience`` runs out; what it refused is not.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from nevermined_fl.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    TransportError,
    Unauthenticated,
)
from nevermined_fl.tokens import make_assertion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.keys import KeyAccount

__all__ = ["GatewayClient"]

_SERVICES = "/api/v1/gateway/services"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ERRORS: dict[int, type[RequestError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    429: PermissionDenied,
}
_MAX_RECORD_WAIT = 25.0
_EXPIRY_MARGIN = 30.0

T = TypeVar("T")


class GatewayClient:
    """One gateway, spoken to with one key.

    Args:
        url: the gateway as its DDOs name it, without path.
        account: the key that signs assertions.
        patience: seconds for which an unreachable gateway is tried again.
    """

    def __init__(self, url: str, account: KeyAccount, *, patience: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._account = account
        self._patience = patience
        self._http = httpx.Client(base_url=self.url + _SERVICES, timeout=httpx.Timeout(30.0, connect=5.0))
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def info(self) -> dict[str, Any]:
        """What the gateway says about itself."""
        return _object(self._call("GET", "/fl"))

    def execute(self, agreement: str, *, workflow: str) -> str:
        """Start what was bought; the execution's id."""
        bearer = self._bearer("execute", sub=agreement, did=workflow)
        return str(_object(self._call("POST", f"/execute/{agreement}", bearer=bearer)).get("workflowId", ""))

    def compute(self, verb: str, agreement: str, execution: str) -> Any:
        """``status``, ``logs`` or ``stop`` of an execution, ``list`` of an agreement."""
        bearer = self._bearer("compute", sub=agreement, execution_id=execution if verb != "list" else "*")
        path = f"/compute/{verb}/{agreement}" + (f"/{execution}" if verb != "list" else "")
        answer = self._call("DELETE" if verb == "stop" else "GET", path, bearer=bearer)
        try:
            return answer.json()
        except ValueError:
            # Upstream's compute API answers some requests with a sentence.
            return answer.text

    def upload(self, content: bytes) -> str:
        """Upload a file; its SHA-256 in hex."""
        bearer = self._bearer("fl/upload", sub=self._account.address)
        return str(_object(self._call("POST", "/fl/uploads", bearer=bearer, content=content)).get("sha256", ""))

    def review(self, *, algorithm: str, workflow: str) -> dict[str, Any]:
        """Ask the provider to look at an algorithm; the state of his decision."""
        bearer = self._bearer("fl/review", sub=self._account.address, did=workflow)
        body = json.dumps({"algorithm": algorithm, "workflow": workflow}).encode()
        return _object(self._call("POST", "/fl/reviews", bearer=bearer, content=body))

    def record(self, session: str, *, after: int = 0, wait: float = 0.0) -> str | None:
        """The session's newest signed record with a number above ``after``; None when there is none within ``wait``."""
        seconds = min(wait, _MAX_RECORD_WAIT)
        answer = self._call("GET", f"/fl/sessions/{session}/record?after={after}&wait={seconds:g}", missing_ok=True)
        return str(_object(answer).get("record", "")) if answer.status_code == 200 else None

    def download(self, did: str, index: int, into: Path, *, max_bytes: int) -> None:
        """Write file ``index`` of an asset to ``into``, at most ``max_bytes``. Not atomic: the caller moves it."""
        bearer = self._bearer("download", did=did)

        def attempt() -> None:
            with self._http.stream("GET", f"/download/{index}", headers=_authorization(bearer)) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self._check(answer)
                _save(answer, into, max_bytes)

        self._patiently(attempt)

    def _bearer(self, service: str, *, sub: str = "", did: str = "", execution_id: str = "") -> str:
        key = (service, sub, did, execution_id)
        token, expires = self._tokens.get(key, ("", 0.0))
        if time.monotonic() < expires:
            return token

        def attempt() -> httpx.Response:
            # An assertion is used up by the first request that carries it, so each attempt signs its own.
            audience = f"{self.url}{_SERVICES}/{service}"
            assertion = make_assertion(self._account, aud=audience, sub=sub, did=did, execution_id=execution_id)
            form = {"grant_type": _GRANT, "assertion": assertion}
            return self._check(self._http.post("/oauth/token", data=form))

        answer = _object(self._patiently(attempt))
        token, seconds = str(answer.get("access_token", "")), answer.get("expires_in", 60)
        self._tokens[key] = (token, time.monotonic() + float(seconds) - _EXPIRY_MARGIN)
        return token

    def _call(
        self, method: str, path: str, *, bearer: str = "", content: bytes | None = None, missing_ok: bool = False
    ) -> httpx.Response:
        def attempt() -> httpx.Response:
            answer = self._http.request(method, path, headers=_authorization(bearer), content=content)
            return answer if missing_ok and answer.status_code == 404 else self._check(answer)

        return self._patiently(attempt)

    def _check(self, answer: httpx.Response) -> httpx.Response:
        """Pass on what succeeded. Raises what the gateway said, or TransportError when another try may help."""
        if answer.status_code < 400:
            return answer
        body = _body(answer)
        message = str(body.get("message") or body.get("error_description") or body.get("error") or "no reason given")
        if answer.status_code >= 500:
            raise TransportError(f"gateway {self.url}: {answer.status_code}, {message}")
        kind = _ERRORS.get(answer.status_code, InvalidRequest)
        raise kind(message, check=str(body.get("check", "request")), hint=str(body.get("hint", "")))

    def _patiently(self, attempt: Callable[[], T]) -> T:
        deadline, pause = time.monotonic() + self._patience, 0.1
        while True:
            try:
                return attempt()
            except (httpx.TransportError, TransportError) as error:
                if time.monotonic() + pause > deadline:
                    reason = error.message if isinstance(error, TransportError) else type(error).__name__
                    raise TransportError(f"gateway {self.url} does not answer: {reason}", hint="try later") from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


def _authorization(bearer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def _save(answer: httpx.Response, into: Path, max_bytes: int) -> None:
    size = 0
    with into.open("wb") as file:
        for block in answer.iter_bytes():
            size += len(block)
            if size > max_bytes:
                raise InvalidRequest(f"{answer.url.host} sends more than the {max_bytes} bytes that the DDO states")
            file.write(block)


def _body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _object(answer: httpx.Response) -> dict[str, Any]:
    if not (body := _body(answer)):
        raise TransportError(f"{answer.url.host} answered {answer.status_code} without a JSON object")
    return body
