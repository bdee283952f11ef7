"""A WebSocket client on bare sockets: it can break every rule, and checks that the server breaks none."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True)
class Frame:
    """A frame as the server sent it."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Close code."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2])

    @property
    def message(self) -> dict[str, Any]:
        assert self.opcode == TEXT, self
        decoded: dict[str, Any] = orjson.loads(self.payload)
        return decoded


class ConnectionEnded(Exception):
    """The server ended the stream; the message is "closed" or "reset"."""


def client_frame(
    payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """Return a client's frame."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 1 << 16:
        head += bytes([mask_bit | 126]) + size.to_bytes(2)
    else:
        head += bytes([mask_bit | 127]) + size.to_bytes(8)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class RawWebSocket:
    """A connection to `/ws`; a context manager."""

    def __init__(
        self, url: str, session_id: str, headers: Mapping[str, str] | None = None, *, receive_bytes: int = 0
    ) -> None:
        address = urlsplit(url)
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._buffer = b""
        try:
            self._shake_hands((str(address.hostname), address.port or 0), session_id, headers)
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self, address: tuple[str, int], session_id: str, headers: Mapping[str, str] | None) -> None:
        self.socket.settimeout(60)
        self.socket.connect(address)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        } | dict(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value != "absent")
        self.socket.sendall(f"GET /ws?sessionId={session_id} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        answer, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.answer = answer.decode("latin-1")
        self.status = int(self.answer.split()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # a thread may be reading
        self.socket.close()

    @property
    def has_received(self) -> bool:
        """Whether more has come with what was read last."""
        return bool(self._buffer)

    def send(self, payload: bytes | str | dict[str, Any], opcode: int = TEXT) -> None:
        if isinstance(payload, dict):
            payload = orjson.dumps(payload)
        self.socket.sendall(client_frame(payload.encode() if isinstance(payload, str) else payload, opcode))

    def next(self, within_s: float = 60) -> Frame:
        """Return the next frame, checked. Raises `ConnectionEnded`, `TimeoutError`."""
        self.socket.settimeout(within_s)
        self._fill(start := 2)
        first, second = self._buffer[:2]
        assert first & 0xF0 == 0x80, f"not a whole frame without extensions: {first:#x}"
        assert first & 0x0F in (TEXT, BINARY, CLOSE, PING, PONG), f"no such frame: {first:#x}"
        assert not second & 0x80, "a server's frame is not masked"
        size = second & 0x7F
        if size > 125:
            self._fill(start := 4 if size == 126 else 10)
            size = int.from_bytes(self._buffer[2:start])
        self._fill(start + size)
        # Removed as a whole: after a timeout in the middle of a frame, the next call finds its beginning.
        received = Frame(first & 0x0F, self._buffer[start : start + size])
        self._buffer = self._buffer[start + size :]
        if received.opcode == TEXT:
            assert {"type", "sessionId", "timestamp"} <= received.message.keys()
        return received

    def message(self, kind: str = "", within_s: float = 60) -> dict[str, Any]:
        """Return the next message, of type `kind` if given; pings are skipped."""
        end_s = time.monotonic() + within_s
        while True:
            received = self.next(max(0.01, end_s - time.monotonic()))
            if received.opcode == TEXT and kind in ("", received.message["type"]):
                return received.message

    def until_end(self, within_s: float = 60) -> list[Frame]:
        """Return all frames up to the end of the stream."""
        return list(self._all(time.monotonic() + within_s))

    def close_code(self, within_s: float = 60) -> int | None:
        """Return the server's close code; None if the stream ends without a close frame."""
        codes = [received.code for received in self.until_end(within_s) if received.opcode == CLOSE]
        assert len(codes) < 2, f"closed more than once: {codes}"
        return codes[0] if codes else None

    def _all(self, end_s: float) -> Iterator[Frame]:
        try:
            while True:
                yield self.next(max(0.01, end_s - time.monotonic()))
        except ConnectionEnded:
            return

    def _take(self, size: int) -> bytes:
        self._fill(size)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError as error:
            raise ConnectionEnded("reset") from error
        if not data:
            assert not self._buffer, f"ended in the middle of a frame: {self._buffer[:40]!r}"
            raise ConnectionEnded("closed")
        self._buffer += data
