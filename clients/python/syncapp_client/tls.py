"""TLS connections that one thread may read while another one writes."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

from requests.utils import DEFAULT_CA_BUNDLE_PATH

_Result = TypeVar("_Result")


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that one thread may read while another one writes, by `recv`, `send` and `sendall`.

    OpenSSL allows one call at a time for a connection, and `ssl` leaves that to its callers. `websockets` reads in a
    thread of its own, which waits within OpenSSL. So with TLS 1.3, one opening handshake in 150 was lost behind nginx,
    and `open_timeout` did not end the wait for it. Here, these calls come one after the other, none of them waits
    within OpenSSL, and `close` ends the wait of another thread.
    """

    _one_call: threading.Lock
    _waiting: threading.Condition
    _waiters: int
    _is_open: bool
    _is_closed: bool
    _timeout_s: float | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the socket that `SSLContext.wrap_socket` fills: it calls no `__init__`."""
        self = super().__new__(cls, *args, **kwargs)
        self._one_call = threading.Lock()
        self._waiting = threading.Condition()
        self._waiters = 0
        self._is_open = self._is_closed = False
        return self

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake. What waits from now on, waits outside of OpenSSL."""
        super().do_handshake(block)
        self._is_open = True
        self.settimeout(self._timeout_s)

    def settimeout(self, value: float | None) -> None:
        """Set how long each call may wait, in seconds; None is for ever."""
        self._timeout_s = value
        super().settimeout(0 if self._is_open else value)

    def gettimeout(self) -> float | None:
        """Return how long each call may wait, in seconds; None is for ever."""
        return self._timeout_s

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Wait for data, and return it. Raises `TimeoutError`."""
        return self._when_ready(super().recv, buflen, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send a part of the data, and return its length. Raises `TimeoutError`."""
        return self._when_ready(super().send, data, flags)

    def shutdown(self, how: int) -> None:
        """Shut the connection down. `ssl` would go on without TLS, and send what comes then as it is."""
        socket.socket.shutdown(self, how)

    def close(self) -> None:
        """Close the connection; other threads return from `recv` and `send`."""
        with self._waiting:
            self._is_closed = True
            with contextlib.suppress(OSError):  # it was not connected any more
                self.shutdown(socket.SHUT_RDWR)
            # epoll would forget a descriptor that is closed while it waits, and not return.
            self._waiting.wait_for(lambda: self._waiters == 0)
        with self._one_call:  # else the descriptor may belong to another connection before the call has ended
            super().close()

    def _when_ready(self, call: Callable[..., _Result], *args: Any) -> _Result:
        while True:
            try:
                with self._one_call:
                    if self._is_closed:
                        raise OSError(errno.EBADF, "the TLS connection is closed")
                    return call(*args)
            except ssl.SSLWantReadError:
                event = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                event = selectors.EVENT_WRITE
            self._wait(event)

    def _wait(self, event: int) -> None:
        with self._waiting:
            if self._is_closed:
                return  # the next call says so
            self._waiters += 1
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self, event)
                if not selector.select(self._timeout_s):
                    raise TimeoutError("the TLS connection has timed out")
        finally:
            with self._waiting:
                self._waiters -= 1
                self._waiting.notify_all()


def client_context() -> ssl.SSLContext:
    """Return a context that trusts what `requests` does: REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, if set, or certifi."""
    trusted = Path(os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH)
    return _context(trusted, trusted.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _context(trusted: Path, _changed_ns: int) -> ssl.SSLContext:
    """Return a context that trusts the certificates of a file or folder; reading all of certifi's takes 40 ms."""
    is_folder = trusted.is_dir()
    context = ssl.create_default_context(capath=trusted if is_folder else None, cafile=None if is_folder else trusted)
    context.sslsocket_class = TlsSocket
    return context
