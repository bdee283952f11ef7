"""A crowd: a process that holds many WebSockets, and records when messages reach them.

It parses frames only far enough to know that they are complete, so that one process can hold thousands of clients.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from bench.pipes import serve

_context = multiprocessing.get_context("spawn")
_HANDSHAKE = (
    "GET /ws?sessionId={} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SYNC, UPDATE, ACK = b'"type":"STATE_SYNC"', b'"type":"STATE_UPDATE"', b'"type":"ACK"'
_LONGEST_S = 30.0


@dataclass(slots=True)
class Client:
    """One socket, its input that is not a complete frame yet, and its last frame."""

    socket: socket.socket
    buffer: bytes = b""
    last: bytes = b""
    heard: list[tuple[int, bytes]] = field(default_factory=list)

    def take(self, data: bytes, at_ns: int) -> None:
        """Take input; record each complete text frame."""
        buffer = self.buffer + data
        if buffer.startswith(b"HTTP"):
            head = buffer.find(b"\r\n\r\n")
            if head < 0:
                self.buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(buffer[:200].decode("latin-1"))
            buffer = buffer[head + 4 :]
        while len(buffer) >= 2:
            start, size = 2, buffer[1] & 0x7F
            if size == 126:
                start, size = 4, int.from_bytes(buffer[2:4])
            elif size == 127:
                start, size = 10, int.from_bytes(buffer[2:10])
            if len(buffer) < start + size:
                break
            if buffer[0] & 0x0F == 1:
                self.last = buffer[: start + size]
                self.heard.append((at_ns, self.last))
            buffer = buffer[start + size :]
        self.buffer = buffer


class Crowd:
    """A process with WebSockets; a context manager. Instants are monotonic ns, the same in all processes."""

    def __enter__(self) -> Self:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def connect(self, port: int, session_ids: Sequence[str], *, bare: bool = False) -> list[int]:
        """Open a socket for each session, all at once; return when each had its state, counted from the first connect.

        bare: to a server that sends nothing by itself.
        """
        found: list[int] = self._ask("connect", port, list(session_ids), bare)
        return found

    def arm(self) -> None:
        """Discard what was received; from now on messages are recorded."""
        self._ask("arm")

    def heard(self, mark: bytes) -> list[int]:
        """Wait until each client has a message that contains a mark; return when each had its first."""
        found: list[int] = self._ask("heard", mark)
        return found

    def last(self) -> bytes:
        """Return the last frame of the first client."""
        found: bytes = self._ask("last")
        return found

    def commands(self, frames: Sequence[bytes], seconds: float) -> tuple[list[float], float]:
        """Send each client's frame again after each ACK; return latencies in µs, and the total time (s)."""
        found: tuple[list[float], float] = self._ask("commands", list(frames), seconds)
        return found

    def leave(self) -> None:
        """Close all sockets."""
        self._ask("leave")

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Clients:
    def __init__(self) -> None:
        self.clients: dict[int, Client] = {}
        self.poll = select.epoll()

    def connect(self, port: int, session_ids: list[str], bare: bool) -> list[int]:
        began = time.monotonic_ns()
        fresh: list[Client] = []
        for each in session_ids:
            opened = socket.create_connection(("127.0.0.1", port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(opened)
            self.clients[opened.fileno()] = client
            self.poll.register(opened.fileno(), select.EPOLLIN)
            fresh.append(client)
            if not bare:
                opened.sendall(_HANDSHAKE.format(each).encode())
        if bare:
            return []
        return [at - began for at in self.heard(SYNC, fresh)]

    def arm(self) -> None:
        while self._read(0):
            pass
        for client in self.clients.values():
            client.heard.clear()

    def heard(self, mark: bytes, clients: list[Client] | None = None) -> list[int]:
        waiting = {each.socket.fileno() for each in (self.clients.values() if clients is None else clients)}
        found: list[int] = []
        end_s = time.monotonic() + _LONGEST_S
        ready = list(waiting)
        while True:
            for number in ready:
                if number in waiting:
                    at = next((at for at, frame in self.clients[number].heard if mark in frame), None)
                    if at is not None:
                        found.append(at)
                        waiting.discard(number)
            if not waiting:
                return found
            if time.monotonic() > end_s:
                raise TimeoutError(f"{len(waiting)} clients did not get {mark.decode()}")
            ready = self._read(1)

    def last(self) -> bytes:
        return next(iter(self.clients.values())).last

    def commands(self, frames: list[bytes], seconds: float) -> tuple[list[float], float]:
        self.arm()
        sent: dict[int, int] = {}
        by_number = dict(zip(self.clients, frames, strict=True))
        latencies: list[float] = []
        began = time.monotonic_ns()
        end = began + int(seconds * 1e9)
        for number, frame in by_number.items():
            sent[number] = time.monotonic_ns()
            self.clients[number].socket.sendall(frame)
        while sent:
            ready = self._read(5)
            if not ready:
                raise TimeoutError("a command was not acknowledged")
            for number in ready:
                client = self.clients[number]
                for at, frame in client.heard:
                    if b'"type":"ERROR"' in frame:
                        raise RuntimeError(frame.decode(errors="replace"))
                    if ACK not in frame or number not in sent:
                        continue
                    latencies.append((at - sent.pop(number)) / 1000)
                    if at < end:
                        sent[number] = time.monotonic_ns()
                        client.socket.sendall(by_number[number])
                client.heard.clear()
        return latencies, (time.monotonic_ns() - began) / 1e9

    def leave(self) -> None:
        for client in self.clients.values():
            client.socket.close()
        self.clients.clear()

    def _read(self, wait_s: float) -> list[int]:
        ready = [number for number, _ in self.poll.poll(wait_s)]
        for number in ready:
            data = self.clients[number].socket.recv(262_144)
            if not data:
                raise ConnectionError("the server closed a WebSocket")
            self.clients[number].take(data, time.monotonic_ns())
        return ready


def _serve(pipe: Connection) -> None:
    serve(pipe, _Clients())


def masked(payload: bytes) -> bytes:
    """Return a client's text frame of up to 65,535 bytes, its mask all zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return b"\x81" + length + bytes(4) + payload
