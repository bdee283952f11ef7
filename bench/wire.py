"""Wires: what the players of a service send, and by which bytes they know its messages."""

from __future__ import annotations

import json
import socket

from bench.crowd import masked


class Wire:
    """SyncApp's protocol. Subclasses have that of another service.

    opened: in the first message after which a client knows the state; empty if there is none.
    moved: in the message about a switch.
    """

    opened = b'"type":"STATE_SYNC"'
    moved = b'"type":"STATE_UPDATE"'

    def handshake(self, session: str) -> bytes:
        """Return the request that opens a WebSocket."""
        return self._get(f"/ws?sessionId={session}")

    def command(self, session: str, place: int) -> bytes:
        """Return the frame with which a player ends the turn."""
        command = {"type": "COMMAND", "id": "1", "command": "switch", "args": {"participant_id": f"p{place}"}}
        return masked(json.dumps(command, separators=(",", ":")).encode())

    def switch(self, player: socket.socket, command: bytes, port: int, version: int) -> None:
        """Send a player's command; port, version: for a service that takes none over its sockets."""
        player.send(command)

    def greeting(self, text: bytes) -> bytes:
        """Return what a client sends after a message that comes before `opened`; empty for nothing."""
        return b""

    def reply(self, text: bytes) -> bytes:
        """Return what a client sends after any other message; empty for nothing."""
        return b""

    def move(self, text: bytes) -> tuple[int, int]:
        """Return the number of the switch in a message about one, which only grows, and whose turn it is now."""
        at = text.index(b'"version":') + 10
        return int(text[at : text.index(b",", at)]), int(text.partition(b'"active_participant_id":"p')[2][:1])

    def is_error(self, text: bytes) -> bool:
        """Return whether a message says that a command was refused."""
        return b'"type":"ERROR"' in text

    @staticmethod
    def _get(path: str) -> bytes:
        return (
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
