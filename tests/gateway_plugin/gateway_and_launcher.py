"""The hospital's real launcher behind its gateway: aiohttp in a thread, the process backend, the same memory chain."""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace

from aiohttp import web
from gateway_world import Door
from permission_world import open_market

from gateway_plugin.launcher import Launcher as Client
from nevermined_fl.backends import open_backend
from nevermined_fl.launcher.app import create_app
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.content import Content
from nevermined_fl.launcher.launcher import Launcher
from nevermined_fl.launcher.records import Records
from nevermined_fl.launcher.store import Store
from nevermined_fl.launcher.web import Web

SECRET = "a secret of the tests"


class House:
    """A provider's gateway and launcher. Algorithms that it approved are fetched in vain, so no job gets to run."""

    def __init__(self, home):
        self.market = open_market()
        self.door = Door(home, self.market)
        settings = self.door.settings
        policy = replace(settings.policy, allow_no_isolation=True, allow_private_targets=True)
        settings = replace(settings, policy=policy, datasets={self.market.dataset: "patients.csv"})
        store, account = Store(home / "provider.sqlite"), self.door.gateway.account
        self.launcher = Launcher(
            settings=settings,
            account=account,
            chain=self.market.chain,
            metadata=self.market.metadata,
            metadata_url="http://127.0.0.1:9",
            backend=open_backend(settings),
            store=store,
            approvals=Approvals(home / "provider.sqlite"),
            content=Content(home / "content"),
            records=Records(store, account),
            web=Web(private=True),
            # The market's time, not the machine's.
            clock=lambda: self.door.now,
        )

    def approve(self):
        self.launcher.approvals.approve("sha256:" + "c1" * 32)

    def execute(self, claims):
        headers = self.door.bearer("execute", **claims)
        return self.door.call("POST", f"/execute/{claims['sub']}", headers)

    def watch(self, method, what, agreement, execution):
        headers = self.door.bearer("compute", sub=agreement, execution_id=execution)
        return self.door.call(method, f"/compute/{what}/{agreement}/{execution}", headers)

    def issue_record(self, session, **fields):
        """As the launcher does when a coordinator has come up, in its own loop."""
        values = {"phase": "selection", "endpoints": {}, "fingerprint": "", "certificate": ""} | fields
        done = threading.Event()

        def issue():
            self.launcher.records.issue(session, valid=60.0, **values)
            done.set()

        self.loop.call_soon_threadsafe(issue)
        assert done.wait(10)


@contextmanager
def open_house(home):
    """A house whose launcher answers until the block ends."""
    house = House(home)
    house.loop = asyncio.new_event_loop()
    up, ports = threading.Event(), []

    async def serve():
        runner = web.AppRunner(create_app(house.launcher, secret=SECRET), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        house.down = asyncio.Event()
        up.set()
        await house.down.wait()
        await runner.cleanup()

    thread = threading.Thread(target=house.loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(10)
    house.url = f"http://127.0.0.1:{ports[0]}"
    object.__setattr__(house.door.gateway, "launcher", Client(house.url, SECRET))
    try:
        yield house
    finally:
        house.door.gateway.launcher.close()
        house.loop.call_soon_threadsafe(house.down.set)
        thread.join(10)
        house.loop.run_until_complete(house.loop.shutdown_default_executor())
        house.loop.close()
        house.launcher.store.close()
        house.launcher.approvals.close()
