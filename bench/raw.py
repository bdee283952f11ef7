"""Redis over a raw socket: the floor of every round trip."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import hiredis


def packed(*command: str | int) -> bytes:
    """Return the bytes of a command."""
    words: Any = tuple(map(str, command))  # its stub allows one word only
    found: bytes = hiredis.pack_command(words)
    return found


class Raw:
    """A blocking socket to Redis with hiredis on it: the cheapest client that Python allows."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def call(self, command: bytes) -> Any:
        """Send a packed command; return its reply."""
        self.send(command)
        return self.next()

    def send(self, commands: bytes) -> None:
        """Send packed commands; read their replies one by one with `next`."""
        self._socket.sendall(commands)

    def next(self) -> Any:
        """Return the next reply."""
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
