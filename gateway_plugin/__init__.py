"""The gateway: HTTP, tokens and on-chain permission, as a Flask blueprint.

What belongs: what a buyer may ask of a provider over HTTP, and who he is. What does not: jobs, their files and their
records (the launcher), and the checks themselves (``nevermined_fl.permissions``).

``register(app, settings, …)`` mounts it in a Flask app that may have a gateway of upstream's already;
``create_app(home)`` is a provider's gateway without one; ``python -m gateway_plugin --home DIR`` serves that.
"""

from __future__ import annotations

from gateway_plugin.app import create_app, register
from gateway_plugin.gateway import PREFIX, Gateway

__all__ = ["PREFIX", "Gateway", "create_app", "register"]
