"""An HTTP client of bare sockets, which may break the rules and check that others are served."""

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
from tests.support.web_clients import Api

MOST_BODY_BYTES = 100_000
TIMEOUT_S = 2
MOST_CONNECTIONS = 200
JSON = "Content-Type: application/json\r\n"


class Peer:
    """A bare connection; a context manager."""

    def __init__(self, url: str, sent: bytes | str = b"") -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self.send(sent)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def end(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self, within_s: float = 60) -> bytes:
        """Return all that comes, to the end of the stream."""
        self.socket.settimeout(within_s)
        data = b""
        while more := self.socket.recv(1 << 16):
            data += more
        return data

    def refused(self, status: int, code: str) -> None:
        """Check that all that comes is one failure in the usual form, and the end."""
        head, _, body = self.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert b"\r\nContent-Type: application/json" in head
        assert b"\r\nConnection: close" in head
        ErrorAnswer.model_validate_json(body)
        assert orjson.loads(body)["error"]["code"] == code


def post(path: str, headers: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n".encode("latin-1") + body


def version(api: Api, path: str) -> int:
    found: int = api.state(path.rpartition("/")[2])["version"]
    return found


@contextmanager
def served(url: str, *, least: int = 1, anew: bool = False) -> Iterator[list[float]]:
    """Check that a well-behaved client is answered all the while: so many times at least, and never late.

    anew: it comes back for every request. How soon it is answered is for bench/. Gives how long it waited (s).
    """
    waits_s: list[float] = []
    done = threading.Event()

    headers = {"Connection": "close"} if anew else {}

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


def keep_sending(to: socket.socket, data: bytes, most_bytes: int = 64_000_000) -> int:
    """Send until the server takes no more; returns how much it took."""
    sent = 0
    to.settimeout(5)
    with suppress(OSError):
        while sent < most_bytes:
            sent += to.send(data)
    return sent
