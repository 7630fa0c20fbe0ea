"""Serve the hospital's gateway over a memory chain, as __main__ does over a real one: ``HOME PORT LAUNCHER TESTS``."""

import sys
from pathlib import Path

home, port, launcher, tests = sys.argv[1:]
sys.path[:0] = [tests, str(Path(__file__).parent)]

from gateway_world import Door  # noqa: E402  the path is needed first

from gateway_plugin.launcher import Launcher  # noqa: E402
from gateway_plugin.server import serve  # noqa: E402
from nevermined_fl.settings import GatewaySettings  # noqa: E402

door = Door(Path(home), launcher=Launcher(launcher, "secret"), gateway=GatewaySettings(port=int(port)))
serve(door.app, door.gateway)
