"""How much of the soak: a seeded sample in a few minutes, or with ``--full`` every boundary there is."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
for folder in (Path(__file__).parent, TESTS / "launcher", TESTS):
    sys.path.insert(0, str(folder))


from matrix import Reach  # noqa: E402  the path is needed first
from soak_world import KINDS, Ground  # noqa: E402  as above
from undisturbed import Undisturbed  # noqa: E402  as above


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every boundary, a second time at a random later hit")
    parser.addoption("--soak-seed", type=int, default=1, help="which sample, and which random moments")


@pytest.fixture
def reach(request, tmp_path, record_property):
    options = request.config
    return Reach(options.getoption("--full"), options.getoption("--soak-seed"), tmp_path, record_property)


@pytest.fixture(scope="session", params=KINDS)
def ground(request, tmp_path_factory):
    return Ground.make(tmp_path_factory.mktemp(request.param) / "ground", request.param)


@pytest.fixture(scope="session")
def undisturbed(ground, tmp_path_factory):
    return Undisturbed.run(ground, tmp_path_factory.mktemp("undisturbed") / "world")
