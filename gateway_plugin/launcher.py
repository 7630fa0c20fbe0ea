"""Launcher: the provider's own process that runs jobs, as the gateway calls it over loopback HTTP."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import httpx

from nevermined_fl.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    SettingsError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nevermined_fl.settings import ProviderSettings

__all__ = ["Launcher"]

logger = logging.getLogger(__name__)

_COMPUTE = "/api/v1/nevermined-compute-api"
_REFUSALS: dict[int, type[RequestError]] = {400: InvalidRequest, 403: PermissionDenied, 404: NotFound, 409: Conflict}
# Starting a job reads the chain and fetches the algorithm from another gateway before it answers.
_PATIENCE = 60.0


class Launcher:
    """Client of one launcher. Refusals come back as the RequestError that the launcher raised, all else as TransportError."""

    def __init__(self, url: str, secret: str) -> None:
        # trust_env=False: a proxy in the environment must never see the secret.
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=_PATIENCE,
            trust_env=False,
            # The URL is plain HTTP on loopback. A context that trusts nobody, and is made at once, is enough.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    @classmethod
    def of(cls, settings: ProviderSettings) -> Launcher:
        """The launcher of these settings.

        Raises:
            SettingsError: the secret file is not there.
        """
        path = settings.path(settings.launcher.secret_file)
        try:
            secret = path.read_text().strip()
        except OSError as error:
            raise SettingsError(f"no launcher secret {path}", hint="nevermined-fl provider init makes it") from error
        return cls(settings.launcher_url(), secret)

    def start(self, job: Mapping[str, Any]) -> str:
        """Start a job; returns its execution id."""
        return self._call("POST", f"{_COMPUTE}/init", json=dict(job)).text.strip()

    def info(self, execution: str) -> dict[str, Any]:
        """Whose job it is."""
        return self._object(self._call("GET", f"{_COMPUTE}/info/{execution}"))

    def executions(self, agreement: str) -> list[str]:
        """Ids of an agreement's executions, and perhaps of others: upstream's compute API lists all."""
        found = self._json(self._call("GET", f"{_COMPUTE}/list", params={"agreement": agreement}))
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise TransportError("the provider's launcher answered something that is not a list of ids")
        return found

    def status(self, execution: str) -> Any:
        """How the job is doing."""
        return self._json(self._call("GET", f"{_COMPUTE}/status/{execution}"))

    def logs(self, execution: str) -> Any:
        """What the buyer may see of the job's events."""
        return self._json(self._call("GET", f"{_COMPUTE}/logs/{execution}"))

    def stop(self, execution: str) -> str:
        """End the job."""
        return self._call("DELETE", f"{_COMPUTE}/stop/{execution}").text

    def review(self, request: Mapping[str, Any]) -> Any:
        """Put an algorithm before the provider's eyes."""
        return self._json(self._call("POST", "/fl/reviews", json=dict(request)))

    def record(self, session: str, *, after: int, wait: float) -> httpx.Response:
        """The session's record with ``seq > after``; the launcher answers after ``wait`` seconds at the latest."""
        query: dict[str, int | float] = {"after": after, "wait": wait}
        return self._call("GET", f"/fl/sessions/{session}/record", params=query, timeout=wait + _PATIENCE)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise TransportError(f"the provider's launcher did not answer: {type(error).__name__}") from error
        if answer.is_success:
            return answer
        raise _refusal(answer)

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise TransportError("the provider's launcher answered something that is not JSON") from error

    def _object(self, answer: httpx.Response) -> dict[str, Any]:
        body = self._json(answer)
        if not isinstance(body, dict):
            raise TransportError("the provider's launcher answered something that is not an object")
        return body


def _refusal(answer: httpx.Response) -> RequestError | TransportError:
    kind = _REFUSALS.get(answer.status_code)
    if kind is None:
        # A 401 is about our own secret, not about the buyer: he can do nothing about it.
        logger.error("the launcher answered %d", answer.status_code)
        return TransportError(f"the provider's launcher answered {answer.status_code}")
    try:
        body = answer.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    message = str(body.get("message") or answer.text[:500])
    return kind(message, check=str(body.get("check") or "launcher"), hint=str(body.get("hint") or ""))
