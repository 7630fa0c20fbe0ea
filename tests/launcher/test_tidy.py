"""What a job leaves behind goes, however it was left."""

import os
import shutil
import time

import pytest

from gateway_plugin.content import Content as GatewayContent
from nevermined_fl.launcher.content import Content
from nevermined_fl.launcher.jobs import _tidy


@pytest.fixture
def work(tmp_path):
    made = tmp_path / "work"
    made.mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_a_folder_deeper_than_the_stack(work):
    (work / "scratch").mkdir()
    (work / "job.key").write_text("the key")
    (work / "events.jsonl").write_text("{}")
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(work / "scratch")
        for _ in range(4000):
            os.mkdir("d")  # noqa: PTH102  a path of this depth is too long for pathlib
            os.chdir("d")
    finally:
        os.fchdir(here)
        os.close(here)
    _tidy(work)
    assert [path.name for path in work.iterdir()] == ["events.jsonl"]


def test_a_folder_that_nobody_may_enter_and_a_link_that_leads_out(work, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("the provider's")
    inner = work / "scratch" / "inner"
    inner.mkdir(parents=True)
    (inner / "link").symlink_to(outside)
    (work / "link").symlink_to(outside)
    inner.chmod(0)
    (work / "scratch").chmod(0o500)
    _tidy(work)
    assert list(work.iterdir()) == []
    assert (outside / "kept").read_text() == "the provider's"


@pytest.mark.parametrize("opened", [Content, GatewayContent])
def test_what_a_killed_gateway_or_launcher_left_half_written_goes_an_hour_later(tmp_path, opened):
    for name, age in ((".dead.part", 3700), (".alive.part", 3500), ("0" * 64, 90_000)):
        (tmp_path / name).write_text("some")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    opened(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".alive.part", "0" * 64}
