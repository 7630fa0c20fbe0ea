"""Serve one provider's launcher: ``python -m nevermined_fl.launcher --home DIR``."""

from __future__ import annotations

import argparse
import logging
import sys

from aiohttp import web

from nevermined_fl import logs
from nevermined_fl.backends import open_backend
from nevermined_fl.chain import connect
from nevermined_fl.errors import NeverminedFLError, SettingsError
from nevermined_fl.files import lock_file
from nevermined_fl.keys import load_account, read_password
from nevermined_fl.launcher.app import create_app
from nevermined_fl.launcher.approvals import Approvals
from nevermined_fl.launcher.content import Content
from nevermined_fl.launcher.launcher import Launcher
from nevermined_fl.launcher.records import Records
from nevermined_fl.launcher.store import Store
from nevermined_fl.launcher.web import Web
from nevermined_fl.metadata import HttpMetadata
from nevermined_fl.settings import ProviderSettings, load_network, load_provider

__all__ = ["main", "open_launcher"]

logger = logging.getLogger(__name__)


def open_launcher(settings: ProviderSettings) -> Launcher:
    """The launcher of a provider's data folder.

    Raises:
        SettingsError: a file of the folder is missing or wrong.
        BackendError: jobs cannot run here as the settings ask.
    """
    account = load_account(settings.path(settings.key_file), read_password(settings.path(settings.password_file)))
    network = load_network(settings.path(settings.network))
    store = Store(settings.path("provider.sqlite"))
    return Launcher(
        settings=settings,
        account=account,
        chain=connect(network, proxy=settings.launcher.proxy_for(network.rpc_url)),
        metadata=HttpMetadata(network.metadata_url, proxy=settings.launcher.proxy_for(network.metadata_url)),
        metadata_url=network.metadata_url,
        backend=open_backend(settings),
        store=store,
        approvals=Approvals(settings.path("provider.sqlite")),
        content=Content(settings.path("content")),
        records=Records(store, account),
        web=Web(private=settings.policy.allow_private_targets, proxy=settings.launcher.proxy),
    )


def main(arguments: list[str] | None = None) -> int:
    """Serve until a signal; live jobs go on at the next start."""
    parser = argparse.ArgumentParser(prog="python -m nevermined_fl.launcher", description=__doc__)
    parser.add_argument("--home", required=True, help="the provider's data folder")
    parser.add_argument("--log-level", default="INFO")
    options = parser.parse_args(arguments)
    logs.configure(options.log_level)
    try:
        settings = load_provider(options.home)
        # Two launchers would end each other's jobs. The lock is held until the process ends.
        lock_file(settings.path("launcher.lock"), "launcher")
        secret = _secret(settings)
        application = create_app(open_launcher(settings), secret=secret)
    except NeverminedFLError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 2
    host, port = settings.launcher.host, settings.launcher.port
    logger.info("launcher of %s at %s", settings.name, settings.launcher_url())
    web.run_app(application, host=host, port=port, access_log=None, print=None, shutdown_timeout=2)
    return 0


def _secret(settings: ProviderSettings) -> str:
    path = settings.path(settings.launcher.secret_file)
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"no launcher secret {path}", hint="nevermined-fl provider init makes it") from error
    if len(secret) < 16:
        raise SettingsError(f"the secret in {path} is shorter than 16 characters")
    return secret


if __name__ == "__main__":
    sys.exit(main())
