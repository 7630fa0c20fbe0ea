"""App: the Flask application, and how its errors look."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

import nevermined_fl
from nevermined_fl.errors import NeverminedFLError, RequestError
from nevermined_fl.metadata_api.login import Logins, load_secret
from nevermined_fl.metadata_api.routes import answer, routes
from nevermined_fl.metadata_api.store import Store

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 2 * 1024**2


def create_app(home: Path) -> Flask:
    """The application over the data folder ``home``, which is made when missing."""
    home.mkdir(parents=True, exist_ok=True)
    store = Store(home / "metadata.sqlite")
    logins = Logins(store, load_secret(home / "login.secret"))
    app = Flask("nevermined_fl.metadata_api", static_folder=None)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.register_blueprint(routes(store, logins))
    _add_errors(app)

    @app.get("/")
    def root() -> Response:
        return answer({"software": "nevermined-fl metadata API", "version": nevermined_fl.__version__})

    return app


def _add_errors(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> Response:
        return answer(error.to_json(), error.status)

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        status = error.code or 500
        body = {"error": error.name.replace(" ", ""), "check": "request", "message": error.description or error.name}
        return answer(body, status)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        # The reason is the operator's to read, not the caller's.
        logger.error("a request failed", exc_info=error)
        kind = type(error).__name__ if isinstance(error, NeverminedFLError) else "InternalServerError"
        return answer({"error": kind, "check": "server", "message": "the metadata API failed; its log says why"}, 500)
