"""One embedded network for all tests of whole sessions: chain, contracts, metadata API, four providers, as processes."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The network with everything published that is for sale; the buyer's algorithm is not approved by anybody yet."""
    from market_world import World  # noqa: PLC0415  web3: seconds that the images' tests do not need

    from nevermined_fl.devnet import network  # noqa: PLC0415  as above

    with network.start(tmp_path_factory.mktemp("net") / "home", providers=3) as running:
        state = running.wait_ready()
        world = World(running.home, state)
        yield world
        world.close()
