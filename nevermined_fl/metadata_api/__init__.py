"""Metadata API: keeps DDOs and finds them, on the paths of the Nevermined metadata API.

What belongs: the HTTP routes, logins, and the store. What does not: what makes a DDO whole (``assets``, ``metadata``);
this server only refuses what is not. It knows no chain: whoever reads a DDO checks its registration.
"""

from nevermined_fl.metadata_api.app import create_app
from nevermined_fl.metadata_api.store import Store

__all__ = ["Store", "create_app"]
