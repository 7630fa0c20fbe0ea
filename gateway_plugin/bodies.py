"""Bodies: what comes in is bounded before it is read, what goes out is JSON, refusals too."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from flask import Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected, HTTPException

from nevermined_fl.errors import InvalidRequest, RequestError, StorageFull, TooLarge, TransportError

if TYPE_CHECKING:
    from flask import Blueprint

__all__ = ["MAX_BODY", "answer_refusals", "plain_http_error", "read_body", "read_form", "read_json", "refusal"]

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes of every body but an upload's."""
_WORDS = {400: "invalid_request", 401: "invalid_token", 403: "access_denied", 404: "not_found", 409: "conflict"}
_MAX_FIELDS = 16


def read_body() -> bytes:
    """The request's body.

    Raises:
        TooLarge: more than MAX_BODY; nothing beyond that is read.
    """
    raw = request.stream.read(MAX_BODY + 1) if (request.content_length or 0) <= MAX_BODY else b""
    if (request.content_length or len(raw)) > MAX_BODY:
        raise TooLarge(f"a body here has at most {MAX_BODY} bytes", check="body_size")
    return raw


def read_form() -> dict[str, str]:
    """The fields of an urlencoded form; a field given twice is refused, as RFC 6749 says."""
    try:
        pairs = parse_qsl(read_body().decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise InvalidRequest("the body is not an urlencoded form", check="body_format") from error
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequest("a form field was given twice", check="body_format")
    return fields


def read_json() -> dict[str, Any]:
    """The body's JSON object."""
    try:
        body = json.loads(read_body())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the body is not JSON", check="body_format") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object", check="body_format")
    return body


def refusal(error: RequestError, *, word: str = "") -> dict[str, str]:
    """The JSON of a refusal: OAuth's two fields (RFC 6749, 5.2) and ours, which name the check."""
    ours = error.to_json()
    return ours | {"error": word or _WORDS.get(error.status, "invalid_request"), "error_description": error.message}


def answer_refusals(blueprint: Blueprint) -> None:
    """Turn every error of the blueprint's routes, and of no other's, into a JSON answer."""
    blueprint.register_error_handler(RequestError, _refused)
    blueprint.register_error_handler(TransportError, _unreachable)
    blueprint.register_error_handler(StorageFull, _full)
    blueprint.register_error_handler(HTTPException, plain_http_error)
    blueprint.register_error_handler(Exception, _broken)


def plain_http_error(error: HTTPException) -> Response:
    """Flask's own refusals, such as an unknown path, in the same form."""
    status = error.code or 500
    text = f"{error.name}: {request.method} {request.path[:200]}"
    # A body shorter than its Content-Length: werkzeug notices before anybody reads a truncated upload.
    check = "body_complete" if isinstance(error, ClientDisconnected) else "http"
    body = {"error": _WORDS.get(status, "invalid_request"), "error_description": text, "check": check, "message": text}
    answer = jsonify(body)
    answer.status_code = status
    return answer


def _refused(error: RequestError) -> Response:
    # The token endpoint's words differ from a resource's (RFC 6749, 5.2 and RFC 6750, 3.1).
    at_token_endpoint = str(request.endpoint).endswith(".token") and error.status == 401
    logger.warning("refused %s %s: %s", request.method, request.path, error.check, extra={"check": error.check})
    answer = jsonify(refusal(error, word="invalid_grant" if at_token_endpoint else ""))
    answer.status_code = error.status
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return answer


def _unreachable(error: TransportError) -> Response:
    logger.error("%s %s: %s", request.method, request.path, error.message)
    body = {
        "error": "temporarily_unavailable",
        "check": "unreachable",
        "message": "a service behind this gateway is silent",
    }
    answer = jsonify(body | {"error_description": body["message"], "hint": "try again in a few seconds"})
    answer.status_code = 503
    answer.headers["Retry-After"] = "2"
    return answer


def _full(error: StorageFull) -> Response:
    logger.error("%s %s: %s", request.method, request.path, error.message)
    body = {"error": "temporarily_unavailable", "check": "storage_full", "message": "the provider's disk is full"}
    answer = jsonify(body | {"error_description": body["message"], "hint": "nothing was kept; try again later"})
    answer.status_code = 507
    return answer


def _broken(error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    body = {"error": "server_error", "check": "internal", "message": "the gateway failed; its log says why"}
    answer = jsonify(body | {"error_description": body["message"]})
    answer.status_code = 500
    return answer
