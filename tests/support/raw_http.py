"""An HTTP client on bare sockets, which can break every rule, and a check that others are served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import orjson
import requests

from syncapp.api.reference.schemas import ErrorAnswer
from tests.support.web_clients import RestClient

MOST_BODY_BYTES = 100_000
TIMEOUT_S = 2
MOST_CONNECTIONS = 200
JSON = "Content-Type: application/json\r\n"


class RawConnection:
    """A TCP connection to a web process; a context manager."""

    def __init__(self, url: str, sent: bytes | str = b"") -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self.send(sent)

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def end(self) -> None:
        """Close the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self, within_s: float = 60) -> bytes:
        """Return everything up to the end of the stream."""
        self.socket.settimeout(within_s)
        data = b""
        while more := self.socket.recv(1 << 16):
            data += more
        return data

    def refused(self, status: int, code: str) -> None:
        """Check that the rest of the stream is one error answer."""
        head, _, body = self.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert b"\r\nContent-Type: application/json" in head
        assert b"\r\nConnection: close" in head
        ErrorAnswer.model_validate_json(body)
        assert orjson.loads(body)["error"]["code"] == code


def post_request(path: str, headers: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n".encode("latin-1") + body


def version_of(api: RestClient, path: str) -> int:
    found: int = api.state(path.rpartition("/")[2])["version"]
    return found


@contextmanager
def others_are_served(url: str, *, least: int = 1, reconnect: bool = False) -> Iterator[list[float]]:
    """Check that another client gets answers during the block: `least` of them or more, each within 10 s.

    reconnect: it opens a connection for every request. Yields the waiting times (s).
    """
    waits_s: list[float] = []
    done = threading.Event()

    headers = {"Connection": "close"} if reconnect else {}

    def ask() -> None:
        with requests.Session() as http:
            while not done.is_set():
                began_s = time.monotonic()
                with suppress(requests.RequestException):
                    http.get(f"{url}/health", headers=headers, timeout=30)
                waits_s.append(time.monotonic() - began_s)
                time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits_s
        assert len(waits_s) >= least
    finally:
        done.set()
        thread.join()
    assert max(waits_s) < 10


def send_until_blocked(to: socket.socket, data: bytes, most_bytes: int = 64_000_000) -> int:
    """Send until the server takes no more; return the number of bytes it took."""
    sent = 0
    to.settimeout(5)
    with suppress(OSError):
        while sent < most_bytes:
            sent += to.send(data)
    return sent
