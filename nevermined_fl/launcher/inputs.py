"""Inputs: lay a dataset out in a job's folder as the Nevermined stack does, ``inputs/<did>/<file>``."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from nevermined_fl.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lay_out"]


def lay_out(source: Path, folder: Path) -> None:
    """Put a file, or the files of a folder, into ``folder``, in place of what is there.

    Hard links where the file system allows: data may be large, and the job gets the folder read-only. Symbolic links in
    a dataset are not followed: they could lead to the provider's key.

    Raises:
        SettingsError: there is nothing at ``source``.
    """
    if not source.exists():
        raise SettingsError(f"no dataset at {source}", hint="datasets in provider.toml name files or folders")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    root = source if source.is_dir() else source.parent
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        target = folder / path.relative_to(root)
        if path.is_dir() and not path.is_symlink():
            target.mkdir(mode=0o700, exist_ok=True)
        elif path.is_file() and (path == source or not path.is_symlink()):
            _place(path.resolve(), target)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or somebody else's file.
        shutil.copyfile(source, target)
