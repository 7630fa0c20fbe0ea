"""A paid session on a memory chain, and the launcher's door in front of its coordinator: who may join is really checked.

The datasets belong to one provider, who signs a join token for each participant's key with his own; the coordinator asks
the admission server over a unix socket, as it asks a launcher.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from nevermined_fl.chain.memory import MemoryChain
from nevermined_fl.errors import RequestError
from nevermined_fl.keys import KeyAccount
from nevermined_fl.launcher.admission import admit
from nevermined_fl.launcher.order import Order, RemoteFile
from nevermined_fl.launcher.sockets import bound_unix
from nevermined_fl.tokens import make_join_token

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from nevermined_fl.tokens import JobKey

SESSION = "did:nv:" + hashlib.sha256(b"benchmark").hexdigest()
_ZERO = "0x" + "00" * 32
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Purchase:
    """A dataset that was bought: its DID and the agreement."""

    did: str
    agreement: str


class Market:
    """Chain, provider, buyer and ``count`` datasets that the buyer has paid for."""

    def __init__(self, count: int) -> None:
        self.chain = MemoryChain()
        self.provider, self.buyer = KeyAccount.create(), KeyAccount.create()
        self.chain.fund(self.buyer.address, count)
        self.purchases = sorted((self._buy(index) for index in range(count)), key=lambda purchase: purchase.did)

    def token(self, purchase: Purchase, key: JobKey) -> str:
        """A join token as a data provider's launcher signs it."""
        return make_join_token(
            self.provider,
            session=SESSION,
            did=purchase.did,
            agreement=purchase.agreement,
            thumbprint=key.thumbprint,
            ttl=12 * _HOUR,
        )

    def order(self) -> Order:
        """What the compute provider's launcher knows of the session."""
        return Order(
            kind="coordinator",
            agreement=_ZERO,
            did=SESSION,
            session=SESSION,
            compute=SESSION,
            workflow=SESSION,
            consumer=self.buyer.address,
            members=tuple(purchase.did for purchase in self.purchases),
            parameters={},
            amounts=(1,),
            receivers=(self.provider.address,),
            file=RemoteFile(SESSION, 0, "", "", 0),
        )

    def _buy(self, index: int) -> Purchase:
        seed = "0x" + hashlib.sha256(f"dataset {index}".encode()).hexdigest()
        did = self.chain.register(self.provider, seed=seed, checksum=_ZERO, url="http://localhost")
        terms = {"did": did, "amounts": [1], "receivers": [self.provider.address]}
        agreement = self.chain.create_agreement(self.buyer, timeout=10**9, **terms)
        self.chain.lock_payment(self.buyer, agreement, **terms)
        return Purchase(did, agreement)


class AdmissionServer(threading.Thread):
    """``POST /admissions`` at a unix socket, judged by the launcher's own function; a context manager."""

    def __init__(self, market: Market, path: Path) -> None:
        super().__init__(daemon=True)
        self._chain, self._order, self._path = market.chain, market.order(), path
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        self._ready.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()

    def run(self) -> None:
        """Serve until stopped."""
        application = web.Application()
        application.router.add_post("/admissions", self._answer)
        runner = web.AppRunner(application, access_log=None)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(_listen(runner, self._path))
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            found = admit(self._chain, self._order, (await request.json())["token"], now=time.time())
        except RequestError as error:
            return web.json_response(error.to_json(), status=403)
        return web.json_response(
            {"participant": found.participant, "agreement": found.agreement, "thumbprint": found.thumbprint}
        )


async def _listen(runner: web.AppRunner, path: Path) -> None:
    with bound_unix(path) as sock:
        await web.SockSite(runner, sock).start()
