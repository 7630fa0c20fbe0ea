"""Certificates: a coordinator's TLS identity, made once and known by its fingerprint in the session record."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nevermined_fl.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Certificate", "ensure_certificate"]

_DAYS = 730


@dataclass(frozen=True, slots=True)
class Certificate:
    """``pem`` is the certificate alone; ``fingerprint`` is ``sha256:<hex>`` of its DER form."""

    pem: str
    fingerprint: str


def ensure_certificate(folder: Path, host: str) -> Certificate:
    """The certificate in ``folder`` (tls.crt, tls.key), made when it is not there: a restart keeps it."""
    if not ((folder / "tls.crt").exists() and (folder / "tls.key").exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_atomic(folder / "tls.key", key.private_bytes(*form))
        write_atomic(folder / "tls.crt", _sign(key, host).public_bytes(serialization.Encoding.PEM))
    pem = (folder / "tls.crt").read_text()
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    return Certificate(pem, f"sha256:{hashlib.sha256(der).hexdigest()}")


def _sign(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nevermined-fl coordinator")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + timedelta(days=_DAYS))
    )
    for extension, critical in _extensions(key, host):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


def _extensions(key: ec.EllipticCurvePrivateKey, host: str) -> list[tuple[x509.ExtensionType, bool]]:
    # Python 3.13 verifies strictly: what anchors trust is a CA that says so, with both key identifiers (RFC 5280).
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"), False
    ) | dict.fromkeys(("encipher_only", "decipher_only"), False)
    return [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_general_name(host)]), False),
        (subject, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject), False),
    ]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
