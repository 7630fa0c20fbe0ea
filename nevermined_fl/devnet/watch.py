"""Does any participant listen, as long as it runs? Seen from outside, by the machine's own tables."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from nevermined_fl.devnet.processes import command_line, descendants, listening_sockets

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ParticipantWatch"]

_PAUSE = 0.25
_MARK = "participant_image"


class ParticipantWatch:
    """Counts listening TCP sockets in the process trees of all participants below a supervisor, until the block ends.

    ``seen`` is how many participant jobs were found, ``listening`` the largest number of sockets at one time.
    """

    def __init__(self, supervisor: int) -> None:
        self.listening = 0
        self._supervisor = supervisor
        self._seen: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="participant watch", daemon=True)

    @property
    def seen(self) -> int:
        """Processes of participants that were looked at."""
        return len(self._seen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_PAUSE):
            pids = [pid for pid in descendants(self._supervisor) if _MARK in command_line(pid)]
            below = {*pids, *descendants(*pids)}
            self._seen |= below
            self.listening = max(self.listening, sum(listening_sockets(pid) for pid in below))
