"""A fresh world for each test that asks for one."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launcher_world import open_world

# Each worker has ports of its own, below those that the system hands out.
_PORTS = 21000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@pytest.fixture
def first_port():
    return _PORTS


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path, _PORTS) as world:
        yield world


@pytest.fixture
async def isolated_world(tmp_path):
    async with open_world(tmp_path, _PORTS, isolated=True) as world:
        yield world
