"""Who may join? The launcher knows the chain; the coordinator asks it through a unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from nevermined_fl.errors import PermissionDenied, TransportError
from nevermined_fl.ports import Admitted

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LauncherAdmission"]


class LauncherAdmission:
    """Implements ports.Admission over the launcher's ``admission.sock``."""

    def __init__(self, socket: Path) -> None:
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket), trust_env=False),
            base_url="http://launcher",
            timeout=60.0,
            trust_env=False,
        )

    async def admit(self, token: str) -> Admitted:
        """Check a join token. Raises PermissionDenied naming the check that failed."""
        try:
            response = await self._client.post("/admissions", json={"token": token})
            body: dict[str, Any] = response.json()
        except (httpx.RequestError, ValueError) as error:
            raise TransportError(f"the launcher does not answer: {type(error).__name__}") from error
        if response.status_code == 200:
            return Admitted(body["participant"], body["agreement"], body["thumbprint"])
        if response.status_code >= 500:
            raise TransportError("the launcher cannot judge the token now")
        raise PermissionDenied(body.get("message", "refused"), check=body.get("check", "admission"))

    async def close(self) -> None:
        """Let go of the socket."""
        await self._client.aclose()
