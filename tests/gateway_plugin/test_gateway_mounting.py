"""The blueprint in somebody else's app: it changes nothing of what it does not own."""

import subprocess
import sys

from flask import Blueprint, Flask
from gateway_world import PREFIX, Door
from permission_world import CLINIC, open_market


def host():
    """An app like upstream's gateway: a blueprint called services under the usual prefix, and its own error page."""
    app = Flask("host")
    services = Blueprint("services", "host")
    services.add_url_rule("/encrypt", "encrypt", lambda: "encrypted")
    services.add_url_rule("/broken", "broken", lambda: 1 / 0)
    app.register_blueprint(services, url_prefix=PREFIX)
    app.register_error_handler(404, lambda _: ("the host's page", 404))
    app.register_error_handler(ZeroDivisionError, lambda _: ("the host's mishap", 500))
    return app


def test_the_host_s_routes_pages_and_configuration_stay_as_they_are(tmp_path):
    app = host()
    before = dict(app.config), dict(app.extensions), app.before_request_funcs.copy()
    door = Door(tmp_path, app=app)
    assert (dict(app.config), dict(app.extensions), app.before_request_funcs.copy()) == before
    assert door.client.get(f"{PREFIX}/encrypt").text == "encrypted"
    assert door.client.get(f"{PREFIX}/nowhere").text == "the host's page"
    assert door.client.get(f"{PREFIX}/broken").text == "the host's mishap"
    assert door.bearer("fl/upload")


def test_the_prefix_is_the_host_s_choice_and_audiences_follow_it(tmp_path):
    door = Door(tmp_path, app=host(), prefix="/fl-gateway")
    assert door.upload(b"code").status_code == 201
    wrong = door.assertion("", aud=f"{PREFIX}/execute", **door.order())
    assert door.trade(wrong).json["check"] == "token_audience"


def test_two_providers_gateways_live_in_one_app_and_share_nothing(tmp_path):
    market, app = open_market(), Flask("both")
    one = Door(tmp_path / "one", market, app=app)
    other = Door(tmp_path / "other", market, app=app, prefix="/other", account=CLINIC)
    one.upload(b"code")
    assert not list((tmp_path / "other" / "content").iterdir())
    headers = one.bearer("fl/upload")
    assert other.call("POST", "/fl/uploads", headers, data=b"x").json["check"] == "token_signature"


def test_importing_it_opens_nothing_and_loads_no_web3():
    code = (
        "import sys, threading, gateway_plugin.app, gateway_plugin.server;"
        "assert 'web3' not in sys.modules and threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
