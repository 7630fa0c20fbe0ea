"""HTTP: DDOs from a metadata API that may be slow, away for a moment, or lying."""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx

from nevermined_fl.assets import MAX_BYTES, check_json, parse, verify_integrity
from nevermined_fl.errors import Conflict, InvalidRequest, MetadataError, NotFound, RequestError
from nevermined_fl.metadata.identity import hash_did

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpMetadata"]

logger = logging.getLogger(__name__)

ASSETS = "/api/v1/metadata/assets"
_DID = re.compile(r"did:nv:[0-9a-f]{64}")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpMetadata:
    """``ports.Metadata`` over HTTP; safe to share between threads.

    Args:
        url: of the metadata API, without path.
        patience: seconds during which an API that does not answer is asked again.
        timeout: seconds that one answer may take.
        proxy: HTTP proxy on the way, ``http://host:port``; without one the environment's.
    """

    def __init__(self, url: str, *, patience: float = 30.0, timeout: float = 10.0, proxy: str = "") -> None:
        self._url = url.rstrip("/")
        self._patience = patience
        self._timeout = timeout
        parts = urlsplit(url)
        # Without TLS a context that trusts nobody will do: to load all authorities takes 60 ms.
        context = httpx.create_ssl_context() if parts.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A proxy of the user's environment cannot reach the user's own machine.
        trust = parts.hostname not in _LOOPBACK
        self._client = httpx.Client(
            timeout=timeout, follow_redirects=False, trust_env=trust, verify=context, proxy=proxy or None
        )

    def publish(self, ddo: Mapping[str, Any]) -> None:
        """As ``ports.Metadata.publish``."""
        raw = json.dumps(check_json(ddo)).encode()
        if len(raw) > MAX_BYTES:
            raise InvalidRequest(f"a DDO of {len(raw)} bytes; at most {MAX_BYTES} are kept", check="ddo_size")
        self._ask("POST", f"{ASSETS}/ddo", limit=2 * MAX_BYTES, content=raw)

    def resolve(self, did: str) -> dict[str, Any]:
        """As ``ports.Metadata.resolve``.

        Raises:
            NotFound: no such DDO.
            InvalidRequest: what came is not the DDO of ``did``; ``check`` names what does not hold.
        """
        if not _DID.fullmatch(did):
            raise InvalidRequest(f"expected did:nv:<64 hex>, got {did[:80]!r}", check="did")
        ddo = parse(self._ask("GET", f"{ASSETS}/ddo/{did}", limit=MAX_BYTES))
        verify_integrity(ddo, hash_did)
        if ddo["id"] != did:
            raise InvalidRequest(f"asked for {did}, got {ddo['id']}", check="ddo_did")
        return ddo

    def search(self, text: str, *, page: int = 1, size: int = 100) -> list[dict[str, Any]]:
        """As ``ports.Metadata.search``; what does not verify is left out."""
        query = {"text": text, "page": str(page), "offset": str(size)}
        raw = self._ask("GET", f"{ASSETS}/ddo/query", limit=(size + 1) * MAX_BYTES, params=query)
        try:
            results = json.loads(raw)["results"]
        except (ValueError, RecursionError, LookupError, TypeError) as error:
            raise MetadataError(f"{self._url} answered a search with something else") from error
        return [ddo for ddo in results if _is_whole(ddo)] if isinstance(results, list) else []

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, *, limit: int, **values: Any) -> bytes:
        """One answer, with patience for an API that is away."""
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                status, raw = self._once(method, path, limit, **values)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                status, raw = 0, str(error).encode() or type(error).__name__.encode()
            if 0 < status < 500 and status != 429:
                return raw if status < 300 else _refuse(status, raw, path)
            if time.monotonic() + pause > deadline:
                reason = f"status {status}" if status else raw.decode(errors="replace")
                raise MetadataError(
                    f"the metadata API at {self._url} did not answer for {self._patience:g} s: {reason}",
                    hint="check that it runs and that its URL is right",
                )
            logger.debug("metadata API away, asking again in %.1f s", pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, method: str, path: str, limit: int, **values: Any) -> tuple[int, bytes]:
        # No compression: a small answer may not grow here.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        end = time.monotonic() + self._timeout
        with self._client.stream(method, self._url + path, headers=headers, **values) as answer:
            raw = bytearray()
            for block in answer.iter_raw(65_536):
                raw += block
                if len(raw) > limit:
                    raise MetadataError(f"{self._url}{path} answered with more than {limit} bytes")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer came too slowly")
            return answer.status_code, bytes(raw)


def _is_whole(ddo: Any) -> bool:
    try:
        verify_integrity(ddo, hash_did)
    except InvalidRequest as refused:
        logger.warning("a search result is left out: %s", refused.message)
        return False
    return True


def _refuse(status: int, raw: bytes, path: str) -> bytes:
    """Raise what the API says."""
    message, check = _reason(raw)
    text = message or f"the metadata API refused {path} with status {status}"
    kinds: dict[int, type[RequestError]] = {400: InvalidRequest, 404: NotFound, 409: Conflict, 413: InvalidRequest}
    if kind := kinds.get(status):
        raise kind(text, check=check)
    raise MetadataError(f"{text} (status {status})")


def _reason(raw: bytes) -> tuple[str, str]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return "", "metadata"
    if not isinstance(body, dict) or not isinstance(body.get("message"), str):
        return "", "metadata"
    return body["message"][:1000], str(body.get("check", "metadata"))[:100]
