"""Opens WebSockets inside of a process of gevent's, has something fail, and prints what they leave behind."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from syncapp import Services, create_app
from syncapp.domain.version_order import NEVER
from syncapp.metrics import WS_CLOSED
from syncapp.server import connection_end, connection_loop
from syncapp.server.admission import WatchRequest
from syncapp.server.command_queue import CommandPool
from syncapp.server.command_runner import Backend
from syncapp.server.connection import Connection
from syncapp.server.connection_loop import ConnectionLoop
from syncapp.server.writer import Writer
from tests.support.many_connections import read_until
from tests.support.raw_websocket import CLOSE, client_frame
from tests.support.store import chess_request, make_settings

TIMEOUT_S = 60


class Client:
    """The client's side of one connection to a session."""

    def __init__(self, backend: Backend, session_id: str) -> None:
        self._backend = backend
        self._session_id = session_id
        self._ends = 0
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(TIMEOUT_S)
        backend.quotas.take(session_id, "127.0.0.1")
        asked = WatchRequest(session_id, NEVER, patches=False)
        access = backend.gate.access(asked)
        self.connection = Connection(backend, access, asked, "127.0.0.1", ours, self._note_end)
        self.connection.begin(asked, b"")

    def _note_end(self) -> None:
        self._ends += 1

    def is_served(self) -> bool:
        read_until(self.socket, b'"STATE_SYNC"')
        return not self._ends

    def close(self) -> None:
        self.socket.sendall(client_frame(b"\x03\xe8", CLOSE))

    def received(self) -> bytes:
        """Return everything until the end."""
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        self.socket.close()
        return data

    def leaves_nothing(self) -> bool:
        """Tell whether the connection has ended once, and is counted and watched no longer."""
        until_s = time.monotonic() + TIMEOUT_S
        while not self._ends and time.monotonic() < until_s:
            time.sleep(0.01)
        quotas, shutdown, hub = self._backend.quotas, self._backend.shutdown, self._backend.hub
        is_watched = self._session_id in hub._topics
        is_served = self.connection in self._backend.loop._stepped.values()
        return self._ends == 1 and not (quotas._open or shutdown.open_connections or is_watched or is_served)


@contextmanager
def failing(owner: Any, name: str, error: Exception) -> Iterator[None]:
    """Have a function raise an error."""
    with patch.object(owner, name, side_effect=error, autospec=True):
        yield


def main(redis_url: str) -> None:
    """Print as JSON what is true of connections that fail."""
    settings, found = make_settings(redis_url), dict[str, bool]()
    app, loop = create_app(settings), ConnectionLoop()
    made: Services = app.extensions["syncapp"]
    pool, guards = CommandPool(4, loop.run), made.guards
    backend = Backend(
        settings, made.store, made.hub, pool, made.limits, guards.quotas, made.gate, guards.shutdown, loop
    )
    session_id = made.store.create(chess_request()).found.session_id
    made.store.start(session_id)
    bug, full = RuntimeError("a bug"), OSError(errno.EMFILE, "Too many open files")

    def opened() -> Client:
        client = Client(backend, session_id)
        assert client.is_served()
        return client

    with app.test_request_context():
        with failing(connection_loop, "readiness", full):
            client = Client(backend, session_id)
        found["a loop that cannot begin leaves nothing"] = client.leaves_nothing()
        found["it tells the client"] = b"\x03\xf3" in client.received()  # 1011
        client = opened()
        found["it begins with the next connection"] = True
        client.close()
        found["that one leaves nothing"] = client.leaves_nothing()

        with failing(loop._readiness, "add", full):
            client = Client(backend, session_id)
        found["a socket that cannot be watched leaves nothing"] = client.leaves_nothing()
        with failing(guards.shutdown, "add", bug):
            client = Client(backend, session_id)
        found["one that cannot be stopped leaves nothing"] = client.leaves_nothing()

        client = opened()
        with failing(Connection, "_serve", bug), failing(Connection, "_close", bug):
            client.connection.wake()
            found["a step whose close fails leaves nothing"] = client.leaves_nothing()
        client = opened()
        with failing(Connection, "_go_on_closing", bug):
            client.close()
            found["a close that does not go on leaves nothing"] = client.leaves_nothing()
        client = opened()
        with (
            failing(connection_end.log, "info", bug),
            failing(WS_CLOSED, "labels", bug),
            failing(Writer, "end", bug),
        ):
            client.connection.fail()
            found["an end of which parts fail leaves nothing"] = client.leaves_nothing()
    print(json.dumps(found))
