"""Sockets: unix sockets in folders whose paths may be longer than a socket's address (107 bytes)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["bind_unix"]


def bind_unix(path: Path) -> socket.socket:
    """A socket bound at ``path``, 0600, in place of what a process that died left there."""
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
