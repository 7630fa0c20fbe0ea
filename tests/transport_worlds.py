"""One session with a real driver behind each transport, for the contract suite."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from contextlib import suppress

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from federation import did, make_plan

from nevermined_fl.codecs import safetensors
from nevermined_fl.driver import Driver
from nevermined_fl.errors import PermissionDenied
from nevermined_fl.launcher.certificates import ensure_certificate
from nevermined_fl.messages import Joined, JoinRequest
from nevermined_fl.ports import Admitted
from nevermined_fl.tokens import JobKey, make_join_proof
from nevermined_fl.transports.http.client import HttpLink, fingerprint_of, pinned_context
from nevermined_fl.transports.http.server import HttpServer, server_context
from nevermined_fl.transports.memory import FINGERPRINT, MemoryLink

SESSION = did("session")
ALICE, BOB = sorted((did("alice"), did("bob")))


def make_certificate(folder):
    """``tls.crt`` and ``tls.key`` as a launcher makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now - dt.timedelta(1))
    certificate = builder.not_valid_after(now + dt.timedelta(30)).sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, private, plain))
    return (folder / "tls.crt").read_text()


def make_model(value: float) -> bytes:
    tensors = {"w": np.full((300, 700), value, np.float32), "b": np.full(5, value / 3, np.float64)}
    return safetensors.dump(tensors)


def digest(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


class World:
    """A session of Alice and Bob, two rounds; ``restart`` kills the coordinator and starts it again."""

    fingerprint = FINGERPRINT
    model = staticmethod(make_model)

    def __init__(self, folder, **plan):
        self.folder = folder
        initial = self.model(1.0)
        (folder / "initial.safetensors").write_bytes(initial)
        self.plan = make_plan((ALICE, BOB), initial, **({"rounds": 2} | plan))
        self.keys = {name: JobKey.create() for name in (ALICE, BOB)}
        self.links = []
        self.told = []

    async def admit(self, token):
        if token not in self.keys:
            raise PermissionDenied("the token is forged", check="token_signature")
        return Admitted(token, "0x" + hashlib.sha256(token.encode()).hexdigest(), self.keys[token].thumbprint)

    async def start(self):
        self.driver = Driver(
            self.plan,
            SESSION,
            folder=self.folder / "coordinator",
            initial=self.folder / "initial.safetensors",
            outputs=self.folder / "outputs",
            admission=self,
            fingerprint=self.fingerprint,
            on_event=self.told.append,
        )
        self.running = asyncio.create_task(self.driver.run(farewell=0.0))
        return self

    async def stop(self):
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        self.driver.close()

    async def restart(self):
        await self.stop()
        await self.start()

    async def close(self):
        for link in self.links:
            await link.close()
        await self.stop()

    def link(self, name, **options):
        link = self.make_link(self.keys.get(name) or JobKey.create(), **options)
        self.links.append(link)
        return link

    def make_link(self, key):
        return MemoryLink(self.driver.service, key)

    def proof(self, name, key=None, **changes):
        values = {"session": SESSION, "fingerprint": self.fingerprint, "token": name} | changes
        return make_join_proof(key or self.keys[name], **values)

    async def join(self, link, name) -> Joined:
        return await link.join(JoinRequest(name, self.proof(name)))

    async def joined(self, name):
        link = self.link(name)
        await self.join(link, name)
        return link

    async def upload_part(self, link, round_number, name, raw, size):
        """An upload that breaks off after ``size`` bytes."""
        sink = self.driver.service.open_update(name, round_number=round_number, digest=digest(raw), size=len(raw))
        sink.write(raw[:size])

    async def report_raw(self, link, name, signed):
        return await self.driver.service.report(name, signed)


class HttpWorld(World):
    """The same over TLS."""

    scheme = "https"

    def __init__(self, folder, **plan):
        super().__init__(folder, **plan)
        self.certificate = make_certificate(folder)
        self.fingerprint = fingerprint_of(self.certificate)
        self.port = 0

    async def start(self):
        await super().start()
        self.server = HttpServer(self.driver.service, status=lambda: {"session": SESSION, "phase": "?"})
        context = server_context(self.folder / "tls.crt", self.folder / "tls.key") if self.is_secret() else None
        self.port = await self.server.start("127.0.0.1", self.port, context)
        return self

    async def stop(self):
        await self.server.close()
        await super().stop()

    def is_secret(self):
        return self.scheme == "https"

    def context(self):
        return pinned_context(self.certificate, self.fingerprint) if self.is_secret() else None

    def make_link(self, key, *, port=None, patience=10.0, **options):
        url = f"{self.scheme}://127.0.0.1:{port or self.port}"
        return HttpLink(url, key=key, context=self.context(), patience=patience, **options)

    async def upload_part(self, link, round_number, name, raw, size):
        """The first ``size`` bytes of a body that announces all of them; then the line is cut."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context())
        head = [
            f"PUT /v1/rounds/{round_number}/updates/{digest(raw)} HTTP/1.1",
            "Host: coordinator",
            f"Authorization: {link._headers['Authorization']}",
            "Upload-Offset: 0",
            f"Upload-Length: {len(raw)}",
            f"Content-Length: {len(raw)}",
        ]
        writer.write("\r\n".join([*head, "", ""]).encode() + raw[:size])
        await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        while self.driver._uploads.spool(round_number).arrived(name, round_number) < size:  # noqa: ASYNC110  another process could write it
            await asyncio.sleep(0.005)

    async def report_raw(self, link, name, signed):
        answer = await link._exchange("POST", "/v1/rounds/1/report", content=signed.encode())
        return answer.body


class PlainWorld(HttpWorld):
    """The same without TLS, where the kernel sends files by itself."""

    scheme = "http"


WORLDS = {"memory": World, "http": HttpWorld, "plain": PlainWorld}


def contexts(kind, folder):
    """TLS of a server and of its client, or neither of them for ``tcp``."""
    if kind == "tcp":
        return None, None
    certificate = ensure_certificate(folder, "127.0.0.1")
    server = server_context(folder / "tls.crt", folder / "tls.key")
    return server, pinned_context(certificate.pem, certificate.fingerprint)
