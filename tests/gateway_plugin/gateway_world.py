"""The hospital's gateway over the market of permission_world, and a caller who knows how to ask."""

from flask import Flask
from permission_world import BUYER, HOSPITAL, NOW, open_market

from gateway_plugin import PREFIX, register
from gateway_plugin.grants import GRANT_TYPE
from gateway_plugin.launcher import Launcher
from nevermined_fl.settings import GatewaySettings, PolicySettings, ProviderSettings
from nevermined_fl.tokens import make_assertion

URL = "https://hospital.example"
MAX_UPLOAD = 100_000
QUOTA = 150_000
# Port 9 (discard): nothing listens there, so a launcher that must not be asked is not.
NOWHERE = "http://127.0.0.1:9"


class Door:
    """One gateway with the clock in the test's hand, asked through Flask's client."""

    def __init__(self, home, market=None, *, account=HOSPITAL, launcher=None, app=None, prefix=PREFIX, **settings):
        self.market = market or open_market()
        self.now = NOW
        self.prefix = prefix
        values = {
            "gateway": GatewaySettings(public_url=URL, max_upload=MAX_UPLOAD, max_buyer_uploads=QUOTA, port=0),
            "policy": PolicySettings(buyers=(BUYER.address.lower(),), min_blocks_left=10),
        } | settings
        self.settings = ProviderSettings(home=home, name="Hospital A", network="network.json", **values)
        self.app = app or Flask("host")
        self.gateway = register(
            self.app,
            self.settings,
            account=account,
            chain=self.market.chain,
            metadata=self.market.metadata,
            launcher=launcher or Launcher(NOWHERE, "secret"),
            url_prefix=prefix,
            name=f"gateway{len(self.app.blueprints)}",
            clock=lambda: self.now,
        )
        self.client = self.app.test_client()

    def assertion(self, service, account=BUYER, *, aud=None, ttl=300, **claims):
        return make_assertion(account, aud=aud or f"{URL}{self.prefix}/{service}", ttl=ttl, now=self.now, **claims)

    def trade(self, assertion, **fields):
        form = {"grant_type": GRANT_TYPE, "assertion": assertion} | fields
        return self.client.post(f"{self.prefix}/oauth/token", data=form)

    def ask_token(self, service, account=BUYER, **claims):
        return self.trade(self.assertion(service, account, **claims))

    def bearer(self, service, account=BUYER, **claims):
        answer = self.ask_token(service, account, **claims)
        assert answer.status_code == 200, answer.json
        return {"Authorization": f"Bearer {answer.json['access_token']}"}

    def call(self, method, path, headers=None, **options):
        return self.client.open(f"{self.prefix}{path}", method=method, headers=headers, buffered=True, **options)

    def upload(self, content, account=BUYER):
        return self.call("POST", "/fl/uploads", self.bearer("fl/upload", account), data=content)

    def order(self, **changes):
        """A paid agreement for the dataset, and the claims of a token to execute it."""
        agreement = self.market.order(self.market.dataset, **changes)
        return {"sub": agreement, "did": self.market.workflow}
