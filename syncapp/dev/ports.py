"""Free ports for the servers that development and tests start."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

_reserved: set[int] = set()


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1, and reserve it until this process ends.

    No later call returns it, in this process or in another one of the same user: its server may not listen yet, or be
    stopped for a while.

    It is below the ports that the system uses for outgoing connections. Otherwise a client that tries to reach a
    stopped server could get the server's own port, and prevent it from starting again.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if _reserve(port) and port_is_free("127.0.0.1", port):
            return port


def _reserve(port: int) -> bool:
    """Lock the byte of this port in a file of the user's, which the system unlocks when the process ends."""
    if port in _reserved:
        return False
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # systems differ in which of them it is
        return False
    _reserved.add(port)
    return True


@functools.cache
def _reservations() -> int:
    path = Path(tempfile.gettempdir()) / f"syncapp-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def port_is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with contextlib.suppress(OSError), socket.create_server((host, port)):
        return True
    return False
