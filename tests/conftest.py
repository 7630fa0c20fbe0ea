"""Settings for all tests, which of them plain ``pytest`` runs, and what the randomised ones reached."""

from pathlib import Path

import pytest
from chain_fixtures import chain_network as chain_network  # noqa: PLC0414  fixtures: one chain for all tests
from chain_fixtures import funded as funded  # noqa: PLC0414
from hypothesis import settings

# A busy machine is no failure, and every run tries the same examples.
settings.register_profile("ours", deadline=None, derandomize=True, database=None)
settings.load_profile("ours")

_TESTS = Path(__file__).parent
APART = tuple(_TESTS / name for name in ("e2e", "soak", "links", "launcher/test_killed_between.py"))
"""They take minutes, or root, or programs: only who names them runs them, as the Makefile's targets do."""


def pytest_ignore_collect(collection_path, config):
    """Leave out what is apart, unless an argument is that or something in it."""
    if collection_path not in APART:
        return None
    here = config.invocation_params.dir
    named = [(here / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(collection_path) for path in named) else True


def pytest_configure(config):
    """Without any argument, what needs bubblewrap is left out too."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS and not config.option.markexpr:
        config.option.markexpr = "not bubblewrap"


def pytest_terminal_summary(terminalreporter):
    """Print the lines that tests left with ``record_property("reach", line)``; it works through xdist as well."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == "reach"]
    if lines:
        terminalreporter.section("reach")
        terminalreporter.write_line("\n".join(lines))
