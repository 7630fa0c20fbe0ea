"""Routes: what each path of the metadata API does."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from nevermined_fl.assets import MAX_BYTES, parse, registry_checksum
from nevermined_fl.errors import InvalidRequest, PermissionDenied
from nevermined_fl.metadata.identity import certify
from nevermined_fl.metadata_api.login import ASSERTION_TYPE, LOGIN, Logins
from nevermined_fl.metadata_api.queries import page_of, query_of

if TYPE_CHECKING:
    from nevermined_fl.metadata_api.store import Query, Store

__all__ = ["ASSETS", "answer", "routes"]

ASSETS = "/api/v1/metadata/assets"
_MAX_SERVICE_BYTES = 64 * 1024


def answer(body: Any, status: int = 200) -> Response:
    """JSON in the order it has: Flask's own would sort the keys, and checksums depend on their order."""
    return Response(json.dumps(body, allow_nan=False), status, mimetype="application/json")


def routes(store: Store, logins: Logins) -> Blueprint:
    """All paths, with and without a slash at their end."""
    found = Blueprint("metadata", __name__)
    for add in (_add_login, _add_reading, _add_writing, _add_queries, _add_services):
        add(found, store, logins)
    return found


def _add_login(found: Blueprint, store: Store, logins: Logins) -> None:
    @found.post(LOGIN)
    def login() -> Response:
        form = request.form
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise InvalidRequest(f"client_assertion_type should be {ASSERTION_TYPE}", check="login")
        return answer({"access_token": logins.login(form.get("client_assertion", ""))}, 201)


def _add_reading(found: Blueprint, store: Store, logins: Logins) -> None:
    @found.get(ASSETS)
    def dids() -> Response:
        page, _ = page_of(request.args)
        return answer(store.dids(page=page, size=10_000))

    @found.get(f"{ASSETS}/ddo")
    def ddos() -> Response:
        return _results(store, query_of(request.args))

    @found.get(f"{ASSETS}/ddo/<did>")
    def ddo(did: str) -> Response:
        return answer(store.get(did))

    @found.get(f"{ASSETS}/ddo/<did>/status")
    def status(did: str) -> Response:
        published = datetime.fromtimestamp(math.floor(store.published(did)), UTC).isoformat().replace("+00:00", "Z")
        return answer(
            {"id": did, "status": "published", "published": published, "checksum": registry_checksum(store.get(did))}
        )

    @found.get(f"{ASSETS}/metadata/<did>")
    def metadata(did: str) -> Response:
        return answer(store.get(did)["service"][0]["attributes"])


def _add_writing(found: Blueprint, store: Store, logins: Logins) -> None:
    @found.post(f"{ASSETS}/ddo")
    def publish() -> Response:
        # No login: the DDO itself proves who made it. What its maker did not sign is not kept.
        ddo = certify(_without_user(parse(_body(MAX_BYTES))))
        for service in ddo["service"]:
            service["attributes"].pop("curation", None)
        return answer(ddo, 201 if store.add(ddo) else 200)

    @found.put(f"{ASSETS}/ddo/<did>")
    def replace(did: str) -> Response:
        _only_creator(store, logins, did)
        ddo = certify(_without_user(parse(_body(MAX_BYTES))))
        if ddo["id"] != did:
            raise InvalidRequest(f"the DDO is that of {ddo['id']}, not of {did}", check="ddo_did")
        store.replace(ddo)
        return answer(ddo)

    @found.delete(f"{ASSETS}/ddo/<did>")
    def remove(did: str) -> Response:
        _only_creator(store, logins, did)
        store.remove(did)
        return answer({"id": did, "status": "removed"})


def _add_queries(found: Blueprint, store: Store, logins: Logins) -> None:
    @found.get(f"{ASSETS}/ddo/query")
    def query() -> Response:
        values = request.args.to_dict()
        text = values.pop("text", "")
        return _results(store, query_of(values | {"query": {"text": text}}))

    @found.post(f"{ASSETS}/ddo/query")
    def query_body() -> Response:
        return _results(store, query_of(parse(_body(_MAX_SERVICE_BYTES))), 201)


def _add_services(found: Blueprint, store: Store, logins: Logins) -> None:
    @found.get(f"{ASSETS}/service/<agreement>")
    def service(agreement: str) -> Response:
        return answer(store.service(agreement))

    @found.post(f"{ASSETS}/service")
    def add_service() -> Response:
        caller = logins.caller()
        body = parse(_body(_MAX_SERVICE_BYTES))
        agreement = body.get("agreementId")
        if not isinstance(agreement, str) or not 1 <= len(agreement) <= 128:
            raise InvalidRequest("agreementId should be a text of 1 to 128 characters", check="service")
        store.add_service(agreement, caller, body)
        return answer(body, 201)


def _results(store: Store, query: Query, status: int = 200) -> Response:
    results = store.find(query)
    pages = math.ceil(results.total / query.size)
    head = {"page": query.page, "total_pages": pages, "total_results": results.total}
    # The texts as they are kept: a page may hold 100 MiB, which nobody needs to parse and write again here.
    text = json.dumps(head)[:-1] + ', "results": [' + ", ".join(results.texts) + "]}"
    return Response(text, status, mimetype="application/json")


def _body(limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise InvalidRequest(f"a body of {request.content_length} bytes; at most {limit} are read", check="ddo_size")
    return request.get_data()


def _without_user(ddo: dict[str, Any]) -> dict[str, Any]:
    """The SDK sends its user id along; who it is, the proof says."""
    return {key: value for key, value in ddo.items() if key != "userId"}


def _only_creator(store: Store, logins: Logins, did: str) -> None:
    caller = logins.caller()
    creator = store.get(did)["proof"]["creator"]
    if caller.lower() != creator.lower():
        raise PermissionDenied(f"{did} was published by {creator}, not by {caller}", check="creator")
