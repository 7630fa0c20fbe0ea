"""Settings for all tests, and what the randomised ones reached."""

from chain_fixtures import chain_network as chain_network  # noqa: PLC0414  fixtures: one chain for all tests
from chain_fixtures import funded as funded  # noqa: PLC0414
from hypothesis import settings

# A busy machine is no failure, and every run tries the same examples.
settings.register_profile("ours", deadline=None, derandomize=True, database=None)
settings.load_profile("ours")


def pytest_terminal_summary(terminalreporter):
    """Print the lines that tests left with ``record_property("reach", line)``; it works through xdist as well."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == "reach"]
    if lines:
        terminalreporter.section("reach")
        terminalreporter.write_line("\n".join(lines))
