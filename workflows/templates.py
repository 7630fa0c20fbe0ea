"""Templates: how one is filled in, and how a document is checked against it.

Four things in a template are not plain JSON:

- ``"${name:type}"`` stands for the JSON value ``name`` of a type of ``types.TYPES``. It is always the whole string, and
  values are put into the parsed tree, so that nothing in a value can change the document around it.
- ``"key?": ...`` is left out when the value of its placeholder is missing or None.
- ``{"$part": "file", "$each": "files"}`` stands for a list: the part is rendered once for each of the values' objects.
- ``{"$part": "compute-service"}`` stands for the part, with the same values.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidDocument, InvalidValue, MissingValue, UnknownTemplate, UnknownValue
from workflows.types import MAX_ITEMS, TYPES, matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["names", "render", "validate"]

_NAMES = ("algorithm", "compute", "dataset", "fl-coordinator", "model", "workflow")
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_]+):([a-z0-9]+)\}")


def names() -> tuple[str, ...]:
    """The templates there are, sorted; each is also the ``main.type`` of its assets."""
    return _NAMES


def render(name: str, /, **values: Any) -> dict[str, Any]:
    """Fill in a template.

    Raises:
        UnknownTemplate: no such template.
        MissingValue, UnknownValue: the values are not those that the template asks for.
        InvalidValue: a value is not of its placeholder's type; ``path`` says which.
    """
    template = _load(name)
    if unknown := sorted(set(values) - set(_placeholders(template))):
        raise UnknownValue(f"the template {name} has no placeholder {unknown[0]!r}", path=unknown[0])
    document: dict[str, Any] = _fill(template, values, "")
    return document


def validate(name: str, document: Any) -> None:
    """Check that a document has the shape of a template; keys that the template does not know are left alone.

    Raises:
        UnknownTemplate: no such template.
        InvalidDocument: something is missing or of the wrong type; ``path`` says where.
    """
    _compare(_load(name), document, "")


def _load(name: str) -> dict[str, Any]:
    if name not in _NAMES:
        raise UnknownTemplate(f"there is no template {name!r:.80}; known are {', '.join(_NAMES)}")
    return _read(f"{name}.json")


@cache
def _read(file: str) -> dict[str, Any]:
    template: dict[str, Any] = json.loads((files("workflows") / "templates" / file).read_text("utf-8"))
    return template


def _part(node: Mapping[str, Any]) -> dict[str, Any]:
    return _read(f"parts/{node['$part']}.json")


def _placeholder(node: str) -> tuple[str, str] | None:
    match = _PLACEHOLDER.fullmatch(node)
    return (match[1], match[2]) if match else None


def _placeholders(node: Any) -> Iterator[str]:
    """Names of the values that a template takes at its top level."""
    if isinstance(node, dict) and "$part" in node:
        yield from [node["$each"]] if "$each" in node else _placeholders(_part(node))
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _placeholders(child)
    elif isinstance(node, str) and (found := _placeholder(node)):
        yield found[0]


# --- filling in --------------------------------------------------------------------------------------------------


def _fill(node: Any, values: Mapping[str, Any], path: str) -> Any:
    if isinstance(node, dict):
        return _fill_part(node, values, path) if "$part" in node else _fill_object(node, values, path)
    if isinstance(node, list):
        return [_fill(child, values, f"{path}[{n}]") for n, child in enumerate(node)]
    found = _placeholder(node) if isinstance(node, str) else None
    return _value(*found, values, path) if found else node


def _fill_object(node: Mapping[str, Any], values: Mapping[str, Any], path: str) -> dict[str, Any]:
    filled = {}
    for key, child in node.items():
        name = key.removesuffix("?")
        if name != key and all(values.get(placeholder) is None for placeholder in _placeholders(child)):
            continue
        filled[name] = _fill(child, values, _join(path, name))
    return filled


def _fill_part(node: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Any:
    part = _part(node)
    if "$each" not in node:
        return _fill(part, values, path)
    name = node["$each"]
    if name not in values:
        raise MissingValue(f"no value for {name}, which {path} needs", path=path)
    items = values[name]
    if not isinstance(items, list | tuple) or not all(isinstance(item, dict) for item in items):
        raise InvalidValue(f"{name} should be a list of objects, got {_show(items)}", path=path)
    return [_fill_item(part, item, f"{path}[{n}]") for n, item in enumerate(items)]


def _fill_item(part: Mapping[str, Any], item: Mapping[str, Any], path: str) -> Any:
    if unknown := sorted(map(str, set(item) - set(_placeholders(part)))):
        raise UnknownValue(f"{path} has no placeholder {unknown[0]!r}", path=path)
    return _fill(part, item, path)


def _value(name: str, kind: str, values: Mapping[str, Any], path: str) -> Any:
    if name not in values:
        raise MissingValue(f"no value for {name}, which {path} needs", path=path)
    if not matches(kind, values[name]):
        raise InvalidValue(f"{name} should be {TYPES[kind][1]}, got {_show(values[name])}", path=path)
    return _copy(values[name])


def _copy(value: Any) -> Any:
    # Through JSON, so that the document shares nothing with the caller and holds nothing that is not JSON.
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"{_show(value)} is not JSON") from error


# --- checking ----------------------------------------------------------------------------------------------------


def _compare(node: Any, found: Any, path: str) -> None:
    if isinstance(node, dict):
        _compare_part(node, found, path) if "$part" in node else _compare_object(node, found, path)
    elif isinstance(node, list):
        _compare_list(node, found, path)
    elif isinstance(node, str) and (placeholder := _placeholder(node)):
        if not matches(placeholder[1], found):
            raise _wrong(path, TYPES[placeholder[1]][1], found)
    elif type(node) is not type(found) or node != found:
        raise _wrong(path, json.dumps(node), found)


def _compare_object(node: Mapping[str, Any], found: Any, path: str) -> None:
    if not isinstance(found, dict):
        raise _wrong(path, "an object", found)
    for key, child in node.items():
        name = key.removesuffix("?")
        if name in found:
            _compare(child, found[name], _join(path, name))
        elif name == key:
            raise InvalidDocument(f"{_join(path, name)} is missing", path=_join(path, name))


def _compare_list(node: list[Any], found: Any, path: str) -> None:
    if not isinstance(found, list) or len(found) != len(node):
        raise _wrong(path, f"a list of {len(node)}" if node else "an empty list", found)
    for n, (child, item) in enumerate(zip(node, found, strict=True)):
        _compare(child, item, f"{path}[{n}]")


def _compare_part(node: Mapping[str, Any], found: Any, path: str) -> None:
    part = _part(node)
    if "$each" not in node:
        _compare(part, found, path)
        return
    if not isinstance(found, list) or len(found) > MAX_ITEMS:
        raise _wrong(path, f"a list of at most {MAX_ITEMS}", found)
    for n, item in enumerate(found):
        _compare(part, item, f"{path}[{n}]")


def _wrong(path: str, expected: str, found: Any) -> InvalidDocument:
    return InvalidDocument(f"{path or 'the document'} should be {expected}, got {_show(found)}", path=path)


def _show(value: Any) -> str:
    """A few characters of a stranger's value, for a message."""
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a huge number"
    return repr(value[:60]) if isinstance(value, str) else f"{value!r:.60}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
