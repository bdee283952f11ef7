"""A load generator: a separate process that sends precomputed bytes over persistent connections.

It costs about 10 µs a request, so that on two cores the server is the bottleneck.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Self

_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a burst of requests: latencies in µs, duration, and how many answers were not a success."""

    latencies_us: list[float]
    took_s: float
    failures: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_us) / self.took_s


class Generator:
    """A process that loads a server; a context manager."""

    def __enter__(self) -> Self:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()

    def load(self, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
        """Send requests for a while, over connections that wait for each answer."""
        self._pipe.send((port, list(requests), connections, seconds))
        load: Load = self._pipe.recv()
        return load


def request(method: str, path: str, headers: str = "") -> bytes:
    """Return the bytes of a request without a body; each header ends in a line break."""
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()


def _serve(pipe: Connection) -> None:
    while True:
        try:
            port, requests, connections, seconds = pipe.recv()
        except EOFError:
            return
        pipe.send(_drive(port, requests, connections, seconds))


def _drive(port: int, requests: list[bytes], connections: int, seconds: float) -> Load:
    """Keep every connection busy until the time is up, then read the outstanding answers."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    poll = select.epoll()
    by_number = {each.fileno(): each for each in sockets}
    buffers = dict.fromkeys(by_number, b"")
    sent_ns: dict[int, int] = {}
    latencies: list[float] = []
    failures, place, total = 0, 0, len(requests)
    now_ns = time.perf_counter_ns
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(each.fileno(), select.EPOLLIN)
    began = now_ns()
    end = began + int(seconds * 1e9)
    for number, each in by_number.items():
        sent_ns[number] = now_ns()
        each.sendall(requests[place % total])
        place += 1
    while sent_ns:
        ready = poll.poll(30)
        if not ready:
            raise TimeoutError("a server has not answered for 30 s")
        for number, _ in ready:
            data = by_number[number].recv(65536)
            if not data:
                raise ConnectionError("the server closed a connection")
            buffer = buffers[number] + data
            if not _is_whole(buffer):
                buffers[number] = buffer
                continue
            buffers[number] = b""
            at = now_ns()
            latencies.append((at - sent_ns[number]) / 1000)
            failures += buffer[9:10] != b"2"
            if at < end:
                sent_ns[number] = now_ns()
                by_number[number].sendall(requests[place % total])
                place += 1
            else:
                del sent_ns[number]
    took_s = (now_ns() - began) / 1e9
    for each in sockets:
        each.close()
    return Load(latencies, took_s, failures)


def _is_whole(buffer: bytes) -> bool:
    """Return whether an answer with a Content-Length is complete."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = buffer.find(b"Content-Length: ", 0, head)
    return at < 0 or len(buffer) >= head + 4 + int(buffer[at + 16 : buffer.index(b"\r\n", at)])
