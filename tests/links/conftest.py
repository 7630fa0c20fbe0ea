"""Worlds of real processes (tests/soak) on bad networks and small disks; needs root, iproute2 and nftables."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in (Path(__file__).parent, TESTS / "soak", TESTS):
    sys.path.insert(0, str(folder))

import pytest  # noqa: E402  the path is needed first
from networks import two_networks  # noqa: E402  as above


@pytest.fixture
def networks():
    with two_networks() as networks:
        yield networks
