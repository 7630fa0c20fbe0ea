"""Objects of another process: the chain and the metadata API outlive the launcher that is killed while it speaks to them."""

from __future__ import annotations

import threading
from contextlib import suppress
from multiprocessing.connection import Client, Listener


class Shared:
    """Serves the methods of some objects by name, a thread for each caller. All of it runs on this machine, for a test."""

    def __init__(self, address, **objects):
        self._objects = objects
        self._listener = Listener(str(address), "AF_UNIX", backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        """Take no more callers."""
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept(),), daemon=True).start()

    def _serve(self, caller):
        with suppress(EOFError, OSError):
            while True:
                name, method, arguments, named = caller.recv()
                caller.send(self._answer(getattr(self._objects[name], method), arguments, named))

    @staticmethod
    def _answer(found, arguments, named):
        try:
            return "value", found(*arguments, **named) if callable(found) else found
        except Exception as error:  # noqa: BLE001  it belongs to the caller
            return "error", (type(error), error.args, vars(error))


class Distant:
    """Stands for an object that another process shares."""

    def __init__(self, address, name, attributes=()):
        self._address, self._name, self._attributes = str(address), name, attributes
        self._lines = threading.local()

    def __getattr__(self, method):
        if method in self._attributes:
            return self._call(method)
        return lambda *arguments, **named: self._call(method, *arguments, **named)

    def _call(self, method, *arguments, **named):
        if not hasattr(self._lines, "line"):
            self._lines.line = Client(self._address, "AF_UNIX")
        self._lines.line.send((self._name, method, arguments, named))
        kind, answer = self._lines.line.recv()
        if kind == "value":
            return answer
        family, words, more = answer
        error = family.__new__(family)
        error.args = words
        vars(error).update(more)
        raise error
