"""What is documented is what there is: every setting, message, event, check, command and aggregator."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from gateway_plugin import checks
from nevermined_fl import aggregation, messages, permissions, settings
from nevermined_fl.cli.app import app, main
from nevermined_fl.session import Plan
from nevermined_fl.session.parameters import PARAMETERS

DOCS = Path(__file__).parents[1] / "docs"


def documented(page):
    """Every `word` in backticks on a page."""
    return set(re.findall(r"`([^`\n]+)`", (DOCS / page).read_text()))


@pytest.mark.parametrize(
    "kind",
    [
        settings.Network,
        settings.ProviderSettings,
        settings.GatewaySettings,
        settings.LauncherSettings,
        settings.CoordinatorSettings,
        settings.PolicySettings,
        settings.LimitSettings,
    ],
)
def test_every_setting_is_in_settings_md(kind):
    sections = {"home", "gateway", "launcher", "coordinator", "policy", "limits"}
    missing = {field.name for field in dataclasses.fields(kind)} - documented("settings.md") - sections
    assert not missing


def test_every_message_and_its_fields_are_in_protocol_md():
    words = documented("protocol.md")
    for name, kind in messages.MESSAGES.items():
        assert name in words
        assert {field.name for field in dataclasses.fields(kind)} <= words


def table(page, heading):
    """The rows of the first table with that heading, cell by cell."""
    lines = (DOCS / page).read_text().split(heading)[1].splitlines()[2:]
    rows = lines[: lines.index("")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_parameter_of_a_plan_is_in_the_table_with_its_default():
    rows = {cells[0].strip("`"): cells for cells in table("protocol.md", "| parameter | default | limits | meaning |")}
    assert set(rows) == set(PARAMETERS)
    defaults = {field.name: field.default for field in dataclasses.fields(Plan)}
    for name, (field, _) in PARAMETERS.items():
        shown, default = rows[name][1].split(":")[0].strip("`"), defaults[field]
        if default is dataclasses.MISSING:
            assert shown == "\N{EN DASH}"
        elif isinstance(default, int | float):
            assert float(shown) == default
        elif default is None or isinstance(default, str):
            assert shown == {None: "null", "": "empty"}.get(default, default)
        assert all(rows[name])


def test_every_aggregator_is_in_protocol_md_with_its_options():
    assert set(aggregation.AGGREGATORS) <= documented("protocol.md")
    for names, options, *_ in table(
        "protocol.md", "| strategy | options with default and limits | what it does | paper |"
    ):
        told = dict(re.findall(r"`(\w+)` ([\d.e-]+)?", options))
        for name in re.findall(r"`(\w+)`", names):
            strategy = aggregation.create(name)
            assert {field.name for field in dataclasses.fields(strategy)} == set(told)
            assert {option: float(default) for option, default in told.items()} == dataclasses.asdict(strategy)


def test_every_check_is_in_protocol_md():
    named = {*permissions.CHECKS, *checks.CHECKS}
    for module in DOCS.parent.glob("nevermined_fl/**/*.py"):
        named |= set(re.findall(r'check="([a-z_]+)"', module.read_text()))
    assert named - documented("protocol.md") == set()


def test_the_readme_s_two_commands_are_targets():
    makefile = (DOCS.parent / "Makefile").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert f"make {target}" in (DOCS.parent / "README.md").read_text()


def test_every_command_is_in_cli_md_with_an_example_of_its_own():
    with pytest.raises(SystemExit):
        main(["--help"])  # it loads the modules that register commands
    names = []
    for name, command in typer.main.get_command(app).commands.items():
        names += [f"{name} {below}" for below in getattr(command, "commands", {})] or [name]
    rows = dict(
        re.findall(r"^\| `([a-z ]+)` \|.*\| `nevermined-fl ([^`]+)` \|$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    )
    assert set(rows) == set(names)
    assert all(example.startswith(name) for name, example in rows.items())


def test_the_readme_s_algorithm_runs_as_it_stands(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    (tmp_path / "algorithm.py").write_text(code)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        header = ",".join(f"x{number}" for number in range(64))
        np.savetxt(tmp_path / f"{name}.csv", rng.normal(size=(4, 64)), delimiter=",", header=header, comments="")
    data = ["--data", str(tmp_path / "a.csv"), "--data", str(tmp_path / "b.csv"), "--into", str(tmp_path / "model")]
    with pytest.raises(SystemExit) as stop:
        main(["simulate", str(tmp_path / "algorithm.py"), *data, "--rounds", "1"])
    assert stop.value.code == 0


def test_links_between_documents_lead_somewhere():
    for page in [*DOCS.glob("**/*.md"), *DOCS.parent.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
