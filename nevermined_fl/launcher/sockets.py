"""Sockets: unix sockets in folders whose paths may be longer than a socket's address (107 bytes)."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["bound_unix"]


@contextmanager
def bound_unix(path: Path) -> Iterator[socket.socket]:
    """A socket at ``path``, 0600, for a server to listen on; let go of when that does not come about."""
    server = _bind(path)
    try:
        yield server
    except BaseException:
        # Who is cancelled while he begins to listen has no server yet that he could close.
        asyncio.get_running_loop().remove_reader(server)
        server.close()
        raise


def _bind(path: Path) -> socket.socket:
    """In place of what a process that died left there."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"  # Linux alone has it
        server.bind(short if Path(f"/proc/self/fd/{folder}").is_dir() else str(path))
        path.chmod(0o600)
    except OSError:
        server.close()
        raise
    finally:
        os.close(folder)
    server.setblocking(False)
    return server
