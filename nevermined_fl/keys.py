"""Keys: who signs on chain and in tokens, and how its secret rests in a file.

Rule 1: a secret is in a V3 keystore file or in memory, never in argv, a log or a repr.
Rule 2: eth_keys and eth_keyfile are imported where they are used: the images load this module and own no chain key.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from nevermined_fl import recursion
from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from eth_keys.datatypes import PublicKey

__all__ = [
    "PASSWORD_VARIABLE",
    "KeyAccount",
    "KeyFile",
    "address_of_point",
    "checksum_address",
    "keccak",
    "load_account",
    "read_password",
    "recover_candidates",
    "recover_message",
]

PASSWORD_VARIABLE = "NEVERMINED_FL_PASSWORD"  # noqa: S105  a variable's name
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SIGNATURE_BYTES = 65
_FAST_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class KeyAccount:
    """A secp256k1 key and its EIP-55 address; satisfies ``ports.Account``."""

    address: str
    secret: bytes = field(repr=False)

    @classmethod
    def create(cls) -> KeyAccount:
        """A new random key."""
        return cls.from_secret(ec.generate_private_key(ec.SECP256K1()).private_numbers().private_value.to_bytes(32))

    @classmethod
    def from_secret(cls, secret: bytes) -> KeyAccount:
        """The account of a 32 byte secret."""
        numbers = ec.derive_private_key(int.from_bytes(secret), ec.SECP256K1()).public_key().public_numbers()
        return cls(address=address_of_point(numbers.x, numbers.y), secret=secret)

    def sign_message(self, message: bytes) -> bytes:
        """Ethereum's personal signature (EIP-191) of ``message``: r, s and v in 65 bytes, v 27 or 28."""
        from eth_keys.datatypes import PrivateKey  # noqa: PLC0415  0.7 s that the images do not need

        raw = PrivateKey(self.secret).sign_msg_hash(_personal_hash(message)).to_bytes()
        return raw[:64] + bytes([raw[64] + 27])


class KeyFile:
    """Keystore files (V3, the format of every Ethereum wallet)."""

    @staticmethod
    def create(path: Path | str, password: str, *, account: KeyAccount | None = None, fast: bool = False) -> KeyAccount:
        """Write a key file (0600) that must not exist yet; a new key unless ``account`` is given.

        Args:
            path: the file; its folder is made when missing.
            password: protects the file.
            account: the key to keep.
            fast: few iterations, for throw-away networks alone: such a file resists no guessing.
        """
        from eth_keyfile.keyfile import create_keyfile_json  # noqa: PLC0415  2 s that the images do not need

        recursion.bound()
        account = account or KeyAccount.create()
        cost = {"kdf": "pbkdf2", "iterations": _FAST_ITERATIONS} if fast else {"kdf": "scrypt"}
        body = create_keyfile_json(account.secret, password.encode(), **cost)
        body["address"] = account.address.removeprefix("0x").lower()
        _write_private(Path(path), json.dumps(body))
        return account


def load_account(path: Path | str, password: str) -> KeyAccount:
    """Read a key file.

    Raises:
        SettingsError: no such file, not a V3 keystore, or another password.
    """
    from eth_keyfile.keyfile import decode_keyfile_json  # noqa: PLC0415  as above

    recursion.bound()
    try:
        body = json.loads(Path(path).read_text())
        if body["version"] != 3:
            raise ValueError("another version")
        secret = decode_keyfile_json(body, password.encode())
    except FileNotFoundError as error:
        raise SettingsError(f"no key file {path}", hint="make one with: nevermined-fl keys new") from error
    except OSError as error:
        raise SettingsError(f"key file {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # eth_keyfile answers a wrong password with ValueError("MAC mismatch")
        reason = "the password does not open it" if "MAC" in str(error) else "it is not a V3 keystore"
        raise SettingsError(f"key file {path}: {reason}") from error
    return KeyAccount.from_secret(secret)


def read_password(path: Path | str | None = None) -> str:
    """The password of a key file: the first line of ``path`` or, without it, $NEVERMINED_FL_PASSWORD.

    Raises:
        SettingsError: neither is there.
    """
    if path is not None and Path(path).is_file():
        return Path(path).read_text().split("\n", 1)[0]
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    where = f"in {path} nor " if path is not None else ""
    raise SettingsError(
        f"no password {where}in ${PASSWORD_VARIABLE}", hint=f"export {PASSWORD_VARIABLE} or write the file"
    )


def keccak(data: bytes) -> bytes:
    """Ethereum's hash, which is not SHA3-256."""
    from eth_hash.auto import keccak as hash_  # noqa: PLC0415  absent in the images

    return bytes(hash_(data))


def checksum_address(address: str | bytes) -> str:
    """EIP-55 form of an address.

    Raises:
        ValueError: not 20 bytes in hex.
    """
    text = "0x" + address.hex() if isinstance(address, bytes) else address
    if not _ADDRESS.fullmatch(text):
        raise ValueError(f"expected an address of 20 bytes in hex, got {text[:60]!r}")
    plain = text[2:].lower()
    nibbles = keccak(plain.encode()).hex()
    return "0x" + "".join(c.upper() if int(n, 16) > 7 else c for c, n in zip(plain, nibbles, strict=False))


def address_of_point(x: int, y: int) -> str:
    """Address of the public key at this point of the curve."""
    return checksum_address(keccak(x.to_bytes(32) + y.to_bytes(32))[-20:])


def recover_message(message: bytes, signature: bytes) -> str:
    """Address that made a personal signature.

    Raises:
        ValueError: not a signature at all.
    """
    if len(signature) != _SIGNATURE_BYTES or signature[64] not in {0, 1, 27, 28}:
        raise ValueError(f"expected r, s and v in 65 bytes, got {len(signature)}")
    key = _recover(_personal_hash(message), signature[:64], signature[64] % 27)
    return str(key.to_checksum_address())


def recover_candidates(digest: bytes, signature: bytes) -> tuple[ec.EllipticCurvePublicKey, ...]:
    """The keys that may have made a signature without its recovery bit (r and s in 64 bytes) of a 32 byte digest."""
    found = []
    for bit in (0, 1):
        try:
            raw = _recover(digest, signature, bit).to_bytes()
        except ValueError:
            continue
        found.append(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), b"\x04" + raw))
    return tuple(found)


def _recover(digest: bytes, signature: bytes, bit: int) -> PublicKey:
    from eth_keys.datatypes import Signature  # noqa: PLC0415  as above
    from eth_keys.exceptions import BadSignature  # noqa: PLC0415  as above
    from eth_utils.exceptions import ValidationError  # noqa: PLC0415  as above

    try:
        return Signature(signature + bytes([bit])).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError) as error:
        raise ValueError("not a signature of secp256k1") from error


def _personal_hash(message: bytes) -> bytes:
    return keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        # link, unlike replace, refuses to overwrite: a key that is gone is money that is gone
        os.link(temporary, path)
    except FileExistsError as error:
        raise SettingsError(f"{path} exists already; a key file is never overwritten") from error
    finally:
        temporary.unlink(missing_ok=True)
