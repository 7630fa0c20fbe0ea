"""App: the gateway as a blueprint for somebody's Flask app (``register``) or as an app of its own (``create_app``).

Rule 1: nothing happens at import, and nothing outside of the blueprint is touched: the host app's configuration, error
pages and other blueprints (upstream's gateway calls its own ``services``) stay as they are.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException

from gateway_plugin.bodies import answer_refusals, plain_http_error
from gateway_plugin.content import Content
from gateway_plugin.gateway import PREFIX, Gateway
from gateway_plugin.launcher import Launcher
from gateway_plugin.ledger import Ledger
from gateway_plugin.views import ROUTES, info
from nevermined_fl.settings import load_network, load_provider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nevermined_fl.keys import KeyAccount
    from nevermined_fl.ports import Chain, Metadata
    from nevermined_fl.settings import ProviderSettings

__all__ = ["create_app", "open_gateway", "register"]


def register(
    app: Flask,
    settings: ProviderSettings,
    *,
    account: KeyAccount,
    chain: Chain,
    metadata: Metadata,
    launcher: Launcher | None = None,
    name: str = "nevermined_fl",
    url_prefix: str = PREFIX,
    clock: Callable[[], float] = time.time,
) -> Gateway:
    """Mount a provider's gateway in an app.

    Args:
        app: any Flask app, with or without blueprints of its own.
        settings: the provider's; ``gateway.public_url`` is where the app is reached.
        account: the provider's key, which signs access tokens.
        chain: must be safe to use from several threads, as must ``metadata``.
        metadata: where DDOs are resolved.
        launcher: default: the one of the settings.
        name: the blueprint's name, unique in the app.
        url_prefix: where the routes are; token audiences start with it.
        clock: Unix seconds.
    """
    gateway = Gateway(
        settings=settings,
        account=account,
        chain=chain,
        metadata=metadata,
        launcher=launcher or Launcher.of(settings),
        ledger=Ledger(settings.path("gateway.sqlite")),
        content=Content(settings.path("content")),
        prefix=url_prefix.rstrip("/"),
        clock=clock,
    )
    app.register_blueprint(_blueprint(gateway, name), url_prefix=gateway.prefix)
    return gateway


def create_app(home: Path | str) -> Flask:
    """A gateway of its own for the provider whose data folder this is.

    Raises:
        SettingsError: the folder's settings, network, key or launcher secret are missing or wrong.
    """
    app, _ = open_gateway(home)
    return app


def open_gateway(home: Path | str) -> tuple[Flask, Gateway]:
    """As create_app, with the gateway that the server needs to know which bodies to take."""
    # Imported here: web3 takes seconds, and a host app that calls register brings its own chain.
    from nevermined_fl.chain import connect  # noqa: PLC0415
    from nevermined_fl.keys import load_account, read_password  # noqa: PLC0415
    from nevermined_fl.metadata import HttpMetadata  # noqa: PLC0415

    settings = load_provider(home)
    network = load_network(settings.path(settings.network))
    account = load_account(settings.path(settings.key_file), read_password(settings.path(settings.password_file)))
    app = Flask("gateway_plugin", static_folder=None)
    chain = connect(network, proxy=settings.launcher.proxy_for(network.rpc_url))
    metadata = HttpMetadata(network.metadata_url, proxy=settings.launcher.proxy_for(network.metadata_url))
    gateway = register(app, settings, account=account, chain=chain, metadata=metadata)
    app.add_url_rule("/", endpoint="root", view_func=partial(info, gateway), methods=["GET"])
    app.register_error_handler(HTTPException, plain_http_error)
    return app, gateway


def _blueprint(gateway: Gateway, name: str) -> Blueprint:
    blueprint = Blueprint(name, __name__)
    for method, path, view in ROUTES:
        blueprint.add_url_rule(path, endpoint=view.__name__, view_func=partial(view, gateway), methods=[method])
    answer_refusals(blueprint)
    return blueprint
