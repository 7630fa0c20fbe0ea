"""Documents of strangers: what must hold before anything in one is read.

Rule 1: whatever a document holds, only InvalidRequest comes out. Everything here walks with a bound on depth and size.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import workflows
from nevermined_fl.errors import InvalidRequest

__all__ = ["MAX_BYTES", "check_json", "envelope", "kind", "main_of", "parse", "service_of"]

MAX_BYTES = 1024**2
MAX_DEPTH = 32
MAX_VALUES = 200_000
_BIGGEST = 2**63
_DID = re.compile(r"did:nv:[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def parse(raw: bytes) -> dict[str, Any]:
    """Read the JSON of a DDO, at most MAX_BYTES."""
    if len(raw) > MAX_BYTES:
        raise InvalidRequest(f"a DDO of {len(raw)} bytes; at most {MAX_BYTES} are read", check="ddo_size")
    try:
        document = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("the DDO is not JSON", check="ddo_json") from error
    return check_json(document)


def check_json(document: Any) -> dict[str, Any]:
    """Check that a value is a JSON object of bearable size, and return it."""
    if not isinstance(document, dict):
        raise InvalidRequest(f"a DDO is a JSON object, not {type(document).__name__}", check="ddo_json")
    todo: list[tuple[Any, int]] = [(document, 1)]
    count, size = 1, 0
    while todo:
        value, depth = todo.pop()
        children = _children(value)
        count += len(children)
        size += len(value) if isinstance(value, str) else 1
        # Before anything is done with the value, so that a huge one costs nothing.
        if depth > MAX_DEPTH or count > MAX_VALUES or size > MAX_BYTES:
            raise InvalidRequest(
                f"a DDO has at most {MAX_DEPTH} levels, {MAX_VALUES} values and {MAX_BYTES} characters",
                check="ddo_size",
            )
        _check_leaf(value)
        todo += [(child, depth + 1) for child in children]
    return document


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _check_leaf(value: Any) -> None:
    """Refuse what JSON does not have, or what cannot be stored or compared."""
    if isinstance(value, str):
        # Half a character cannot be written as UTF-8.
        if not value.isascii() and _SURROGATE.search(value):
            raise InvalidRequest("a text of the DDO holds half a surrogate pair", check="ddo_json")
    elif isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise InvalidRequest("the keys of a DDO are texts", check="ddo_json")
    elif isinstance(value, int):
        if not -_BIGGEST <= value < _BIGGEST:
            raise InvalidRequest("a number of the DDO has more than 64 bits", check="ddo_json")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidRequest("a number of the DDO is not finite", check="ddo_json")
    elif value is not None and not isinstance(value, list):
        raise InvalidRequest(f"a DDO holds no {type(value).__name__}", check="ddo_json")


def _refuse(word: str) -> float:
    raise ValueError(word)


# --- what every DDO has ------------------------------------------------------------------------------------------


def envelope(document: Any) -> dict[str, Any]:
    """Check JSON, id, proof and the outline of the services, and return the DDO."""
    ddo = check_json(document)
    _expect(ddo, "id", _DID)
    proof = ddo.get("proof")
    if not isinstance(proof, dict) or not isinstance(proof.get("checksum"), dict):
        raise InvalidRequest("proof.checksum should be an object", check="ddo_shape")
    _expect(proof, "creator", _ADDRESS, "proof.")
    services = ddo.get("service")
    if not isinstance(services, list) or not services:
        raise InvalidRequest("service should be a list of at least one service", check="ddo_shape")
    for n, service in enumerate(services):
        _check_service(service, n)
    if len({service["index"] for service in services}) != len(services):
        raise InvalidRequest("two services have the same index", check="ddo_shape")
    if services[0]["type"] != "metadata" or services[0]["index"] != 0:
        raise InvalidRequest("service[0] should be the metadata service, with index 0", check="ddo_shape")
    return ddo


def _check_service(service: Any, n: int) -> None:
    ok = (
        isinstance(service, dict)
        and isinstance(service.get("type"), str)
        and type(service.get("index")) is int
        and isinstance(service.get("attributes"), dict)
        and isinstance(service["attributes"].get("main"), dict)
    )
    if not ok:
        raise InvalidRequest(f"service[{n}] should have type, index and attributes.main", check="ddo_shape")


def _expect(holder: dict[str, Any], key: str, pattern: re.Pattern[str], where: str = "") -> None:
    value = holder.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        shown = value[:80] if isinstance(value, str) else type(value).__name__
        raise InvalidRequest(f"{where}{key} should look like {pattern.pattern}, got {shown!r}", check="ddo_shape")


def kind(document: Any) -> str:
    """``main.type`` of a DDO whose shape is that of its template: one of ``workflows.names()``."""
    ddo = envelope(document)
    name = ddo["service"][0]["attributes"]["main"].get("type")
    if not isinstance(name, str) or name not in workflows.names():
        known = ", ".join(workflows.names())
        shown = name[:80] if isinstance(name, str) else type(name).__name__
        raise InvalidRequest(f"main.type {shown!r} is not supported; known are {known}", check="main_type")
    try:
        workflows.validate(name, ddo)
    except workflows.TemplateError as error:
        raise InvalidRequest(f"{name} {ddo['id']}: {error}", check="ddo_shape") from error
    return name


def main_of(document: Any, *kinds: str) -> dict[str, Any]:
    """``attributes.main`` of the metadata service of a DDO that is one of ``kinds``."""
    found = kind(document)
    if found not in kinds:
        raise InvalidRequest(f"{document['id']} is a {found}, not a {' or '.join(kinds)}", check="main_type")
    main: dict[str, Any] = document["service"][0]["attributes"]["main"]
    return main


def service_of(document: Any, name: str) -> dict[str, Any]:
    """The one service of type ``name``; its shape is its template's when :func:`kind` passed."""
    found = [service for service in document["service"] if service["type"] == name]
    if len(found) != 1:
        raise InvalidRequest(f"{document['id']} has {len(found)} services of type {name}, not 1", check="ddo_shape")
    service: dict[str, Any] = found[0]
    return service
