"""A fresh world for each test that asks for one."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launcher_world import open_world

# Each worker has ports of its own, below those that the system hands out.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = iter(range(21000 + 2000 * _WORKER, 23000 + 2000 * _WORKER, 50))


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path, next(_PORTS)) as world:
        yield world


@pytest.fixture
async def isolated_world(tmp_path):
    async with open_world(tmp_path, next(_PORTS), isolated=True) as world:
        yield world
