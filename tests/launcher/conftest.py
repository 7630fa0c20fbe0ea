"""A fresh world for each test that asks for one."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launcher_world import PORTS, open_world

from nevermined_fl.devnet.ports import free_ports


@pytest.fixture(scope="session")
def first_port():
    """The first of a world's ports, the same ones in all tests of this process."""
    return free_ports(PORTS)[0]


@pytest.fixture
async def world(tmp_path, first_port):
    async with open_world(tmp_path, first_port) as world:
        yield world


@pytest.fixture
async def isolated_world(tmp_path, first_port):
    async with open_world(tmp_path, first_port, isolated=True) as world:
        yield world
