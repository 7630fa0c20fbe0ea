"""Serve a provider's gateway: ``python -m gateway_plugin --home PROVIDER_DIR``."""

from __future__ import annotations

import argparse
import logging
import sys

from gateway_plugin.app import open_gateway
from gateway_plugin.server import serve
from nevermined_fl import logs
from nevermined_fl.errors import NeverminedFLError


def main() -> int:
    """Run until told to stop; 2 when the settings are wrong."""
    parser = argparse.ArgumentParser(prog="gateway_plugin", description="Serve a provider's gateway.")
    parser.add_argument("--home", required=True, help="the provider's data folder, with provider.toml")
    arguments = parser.parse_args()
    logs.configure()
    # httpx logs every URL that it calls.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        app, gateway = open_gateway(arguments.home)
    except NeverminedFLError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 2
    serve(app, gateway)
    return 0


if __name__ == "__main__":
    sys.exit(main())
