"""What a job leaves behind goes, however it was left."""

import os
import shutil

import pytest

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
