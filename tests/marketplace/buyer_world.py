"""A data scientist on the memory market of permission_world, and the hospital's real gateway on a real socket."""

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "gateway_plugin"))

from gateway_world import Door
from permission_world import BUYER, open_market
from werkzeug.serving import make_server

from nevermined_fl.devnet.ports import free_ports
from nevermined_fl.marketplace.data_scientist import DataScientist
from nevermined_fl.marketplace.market import Market
from nevermined_fl.settings import GatewaySettings

__all__ = ["BUYER", "a_buyer", "serving"]


def a_buyer(world=None):
    """The buyer of ``world`` with its 1000 tokens, and the world."""
    world = world or open_market()
    market = Market(BUYER, world.chain, world.metadata, "http://127.0.0.1:5000", "buyer")
    return DataScientist.over(market), world


@contextmanager
def serving(home, world=None, **settings):
    """The hospital's gateway behind a socket; yields its door and its URL."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    door = Door(home, world, gateway=GatewaySettings(public_url=url, port=port, max_upload=1000), **settings)
    door.now = time.time()
    server = make_server("127.0.0.1", port, door.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield door, url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
