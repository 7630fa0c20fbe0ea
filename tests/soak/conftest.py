"""How much of the soak: a seeded sample in a few minutes, or with ``--full`` every boundary there is."""

import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    sys.path.insert(0, str(folder))


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every boundary, a second time at a random later hit")
    parser.addoption("--soak-seed", type=int, default=1, help="which sample, and which random moments")


@pytest.fixture(scope="session")
def full(request):
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def seed(request):
    return request.config.getoption("--soak-seed")
