"""Where can a process die? Follows its execution line by line, and ends it when it is about to run one of them.

Rule 1: nothing in the library knows of this; the tracer is installed by the test's own runner after a fork. Rule 2: a
boundary is a line about to run, so that "before the first write" and "after the last rename" are both among them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nevermined_fl

ROOT = Path(nevermined_fl.__file__).parents[1]


@dataclass(frozen=True, slots=True, order=True)
class Boundary:
    """A line of a file of the library, and how often it ran in the undisturbed session."""

    file: str
    line: int
    times: int = 1

    def __str__(self):
        return f"{self.file}:{self.line}"


def files_of(*patterns, package="nevermined_fl"):
    """Files of a package by glob, relative to its folder."""
    found = {path for pattern in patterns for path in (ROOT / package).glob(pattern) if path.name != "__init__.py"}
    assert found, patterns
    return frozenset(str(path) for path in found)


class Tracer:
    """Counts the lines of some files; at the ``nth`` time of ``target`` this process kills itself."""

    def __init__(self, files, target=None, nth=1):
        self._files = files
        self._target = (str(ROOT / target.file), target.line) if target else None
        self._nth = nth
        self._counts = Counter()

    def start(self):
        """From now on, in this thread and in those that begin later."""
        threading.settrace(self._on_call)
        sys.settrace(self._on_call)

    def save(self, path):
        """The boundaries that were met, for the parent."""
        sys.settrace(None)
        threading.settrace(None)
        rows = [[str(Path(file).relative_to(ROOT)), line, times] for (file, line), times in self._counts.items()]
        path.write_text(json.dumps(sorted(rows)))

    def _on_call(self, frame, event, argument):
        return self._on_line if frame.f_code.co_filename in self._files else None

    def _on_line(self, frame, event, argument):
        if event == "line":
            place = (frame.f_code.co_filename, frame.f_lineno)
            self._counts[place] += 1
            if place == self._target and self._counts[place] == self._nth:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._on_line


def load(path):
    """What ``save`` wrote."""
    return [Boundary(*row) for row in json.loads(path.read_text())]
