"""Server: waitress, which refuses a body that is too large, or an upload without a token, before it takes it in.

waitress spools a request's whole body to a temporary file before the app sees the request. An app's own checks would
come too late: anybody could fill the disk. So they are made here once more, when the headers have been read.
"""

from __future__ import annotations

import copy
import json
import logging
import signal
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import waitress
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import Error, RequestEntityTooLarge

from gateway_plugin.bodies import MAX_BODY, refusal
from gateway_plugin.grants import check_bearer
from nevermined_fl.errors import RequestError, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from gateway_plugin.gateway import Gateway

__all__ = ["make_server", "serve"]

logger = logging.getLogger(__name__)

_THREADS = 24
_PHRASES = {401: "Unauthorized", 403: "Forbidden", 413: "Content Too Large"}


class _Refused(Error):  # type: ignore[misc]  # waitress ships no types
    """A refusal as waitress sends it: then it closes the connection and never reads the body."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message)
        self.code, self.reason = error.status, _PHRASES.get(error.status, "Refused")
        self._body = json.dumps(refusal(error)).encode()

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        return f"{self.code} {self.reason}", [("Content-Type", "application/json")], self._body


class _Parser(HTTPRequestParser):  # type: ignore[misc]  # as above
    """Asks ``most_bytes`` how large a body it may take."""

    most_bytes: ClassVar[Callable[[str, dict[str, str]], int]]
    adj: Any

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        self.adj = copy.copy(self.adj)
        try:
            # waitress refuses from this size on, we from beyond it.
            self.adj.max_request_body_size = type(self).most_bytes(self.path, self.headers) + 1
        except RequestError as error:
            self._refuse(error)

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if isinstance(self.error, RequestEntityTooLarge):
            most = self.adj.max_request_body_size - 1
            self._refuse(TooLarge(f"a body here has at most {most} bytes", check="body_size"))
        return consumed

    def _refuse(self, error: RequestError) -> None:
        self.error = _Refused(error)
        self.completed = True
        self.expect_continue = False


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # as above
    """Does not wait for long polls when the server ends."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 1) -> bool:  # noqa: FBT001, FBT002  waitress's
        return bool(super().shutdown(cancel_pending, timeout))


def make_server(app: Flask, gateway: Gateway, *, threads: int = _THREADS) -> Any:
    """A waitress server that listens but does not run yet. Many threads, because long polls occupy them."""

    def most_bytes(path: str, headers: dict[str, str]) -> int:
        if path != f"{gateway.prefix}/fl/uploads":
            return MAX_BODY
        check_bearer(gateway, "fl/upload", headers.get("AUTHORIZATION", ""))
        return gateway.settings.gateway.max_upload

    parser = type("Parser", (_Parser,), {"most_bytes": staticmethod(most_bytes)})
    channel = type("Channel", (HTTPChannel,), {"parser_class": parser})
    dispatcher = _Dispatcher()
    dispatcher.set_thread_count(threads)
    settings = gateway.settings.gateway
    sockets: dict[int, Any] = {}
    server = waitress.create_server(
        app,
        sockets,
        _dispatcher=dispatcher,
        host=settings.host,
        port=settings.port,
        max_request_body_size=settings.max_upload + 1,
        ident="nevermined-fl",
    )
    # A host name can stand for several sockets, IPv4 and IPv6, each with a listener of its own.
    for listener in sockets.values():
        if isinstance(listener, BaseWSGIServer):
            listener.channel_class = channel
    return server


def serve(app: Flask, gateway: Gateway) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = make_server(app, gateway)
    signal.signal(signal.SIGTERM, _leave)
    logger.info("gateway of %s on %s", gateway.settings.name, gateway.settings.gateway_url())
    try:
        server.run()
    finally:
        server.close()
        gateway.launcher.close()


def _leave(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)
