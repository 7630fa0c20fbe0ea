"""Run the metadata API: ``python -m nevermined_fl.metadata_api --home DIR --port N``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waitress.server import create_server

from nevermined_fl import logs
from nevermined_fl.metadata_api.app import MAX_REQUEST_BYTES, create_app

if TYPE_CHECKING:
    from types import FrameType

_THREADS = 8


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m nevermined_fl.metadata_api", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="data folder; made when missing")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="0 takes a free one (default %(default)s)")
    options = parser.parse_args(arguments)
    logs.configure()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    server = create_server(
        create_app(options.home),
        host=options.host,
        port=options.port,
        threads=_THREADS,
        max_request_body_size=MAX_REQUEST_BYTES,
        ident="nevermined-fl",
    )
    # Who started it with port 0 reads the port here.
    sys.stdout.write(f"http://{options.host}:{_port(server)}\n")
    sys.stdout.flush()
    server.run()
    return 0


def _port(server: Any) -> int:
    """The port; a name like localhost may mean several sockets, which then share the number that was asked for."""
    port: int = server.effective_port if hasattr(server, "effective_port") else server.effective_listen[0][1]
    return port


def _stop(number: int, frame: FrameType | None) -> None:
    # waitress closes its sockets and waits for its threads when this passes through it.
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
