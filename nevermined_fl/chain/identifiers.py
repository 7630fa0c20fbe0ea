"""Identifiers: DIDs, ids and addresses as people and contracts write them.

Everything that comes in may be somebody's typing or a stranger's JSON: what has the wrong form is InvalidRequest.
"""

from __future__ import annotations

import re

from nevermined_fl.errors import InvalidRequest
from nevermined_fl.keys import checksum_address

__all__ = ["checked_address", "did_text", "id_text", "words"]

_ID = re.compile(r"(?:did:nv:|0x)([0-9a-fA-F]{64})")


def words(text: str) -> bytes:
    """The 32 bytes of a DID or an id, in either form."""
    found = _ID.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidRequest(f"expected did:nv: or 0x and 64 hex digits, got {str(text)[:90]!r}", check="identifier")
    return bytes.fromhex(found[1])


def did_text(raw: bytes) -> str:
    """``did:nv:<hex>``."""
    return "did:nv:" + raw.hex()


def id_text(raw: bytes) -> str:
    """``0x<hex>``."""
    return "0x" + raw.hex()


def checked_address(text: str) -> str:
    """An address with its checksum."""
    try:
        return checksum_address(text)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"expected an address, got {str(text)[:60]!r}", check="identifier") from error
