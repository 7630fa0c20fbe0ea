"""Plain pytest runs what ``make test`` runs; the rest only runs by name."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTS = Path(__file__).parent


@pytest.fixture
def left_out(pytestconfig):
    """What is apart and not collected."""
    ours = pytestconfig.pluginmanager.get_plugin(str(TESTS / "conftest.py"))

    def judge(*arguments, folder=TESTS.parent):
        config = SimpleNamespace(args=arguments, invocation_params=SimpleNamespace(dir=folder))
        paths = [*ours.APART, TESTS / "driver"]
        return {str(path.relative_to(TESTS)) for path in paths if ours.pytest_ignore_collect(path, config)}

    return judge


ALL = {"e2e", "soak", "links", "launcher/test_killed_between.py"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tests"], ALL),
        (["tests/launcher", "tests/driver/test_status.py"], ALL),
        (["tests/soak"], ALL - {"soak"}),
        (["tests/links/test_links.py::test_a_name[1-soak]"], ALL - {"links"}),
        (["tests/e2e", "tests/launcher/test_killed_between.py"], {"soak", "links"}),
        ([str(TESTS / "soak")], ALL - {"soak"}),
    ],
)
def test_what_needs_minutes_or_root_runs_by_name_alone(left_out, arguments, expected):
    assert left_out(*arguments) == expected


def test_a_name_is_read_from_where_pytest_was_called(left_out):
    assert left_out("../soak", folder=TESTS / "driver") == ALL - {"soak"}


@pytest.mark.parametrize(
    ("arguments", "is_run"), [([], False), (["-m", "bubblewrap"], True), (["test_nested.py"], True)]
)
def test_what_needs_bubblewrap_runs_by_its_mark_or_by_name(arguments, is_run):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=TESTS / "trainers", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert ("trainers/test_nested.py::" in done.stdout) == is_run
