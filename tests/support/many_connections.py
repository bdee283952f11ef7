"""Opens WebSockets inside of a process of gevent's, ends them in all ways, and prints what they leave behind."""

from __future__ import annotations

import gc
import json
import socket
import struct
import time

from syncapp import Services, create_app
from syncapp.domain.version_order import NEVER
from syncapp.server.admission import WatchRequest
from syncapp.server.command_queue import CommandPool
from syncapp.server.command_runner import Backend
from syncapp.server.connection import Connection
from syncapp.server.connection_loop import ConnectionLoop, Stepped
from tests.support.raw_websocket import CLOSE, client_frame
from tests.support.store import chess_request, make_settings

COUNT = 100
SWITCH = client_frame(b'{"type":"COMMAND","id":1,"command":"switch"}')


class Connections:
    """Connections to one session, and their clients' sides."""

    def __init__(self, backend: Backend, session_id: str) -> None:
        self.ended = 0
        self.clients: list[socket.socket] = []
        for _ in range(COUNT):
            ours, theirs = socket.socketpair()
            backend.quotas.take(session_id, "127.0.0.1")
            asked = WatchRequest(session_id, NEVER, patches=False)
            access = backend.gate.access(asked)
            Connection(backend, access, asked, "127.0.0.1", ours, self._note_end).begin(asked, b"")
            self.clients.append(theirs)
        for client in self.clients:
            read_until(client, b'"STATE_SYNC"')

    def end(self, backend: Backend) -> None:
        """End them: by closes, resets, broken frames, floods and commands in flight, and the last by a shutdown."""
        for number, client in enumerate(self.clients[:-10]):
            kind = number % 6
            if kind == 0:
                client.sendall(client_frame(b"\x03\xe8", CLOSE))
            elif kind == 1:
                client.sendall(client_frame(b"x", rsv=1))
            elif kind == 2:
                client.sendall(SWITCH * 3)
            elif kind == 3:
                client.sendall(client_frame(b"{}") * 2000)
            elif kind == 4:
                client.sendall(SWITCH)
                read_until(client, b'"ACK"')
            else:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        backend.shutdown.run()
        until_s = time.monotonic() + 30
        while self.ended < COUNT and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(0.5)  # commands that still run

    def _note_end(self) -> None:
        self.ended += 1


def read_until(client: socket.socket, mark: bytes) -> None:
    data = b""
    while mark not in data:
        more = client.recv(65536)
        if not more:
            raise EOFError(f"the connection ended before {mark!r}")
        data += more


def main(redis_url: str) -> None:
    """Print as JSON how many objects of a connection the garbage collector has to visit, and how many are left."""
    settings = make_settings(redis_url, ws_drain_s=0.1)
    app, loop = create_app(settings), ConnectionLoop()
    made: Services = app.extensions["syncapp"]
    pool, guards = CommandPool(4, loop.run), made.guards
    backend = Backend(
        settings, made.store, made.hub, pool, made.limits, guards.quotas, made.gate, guards.shutdown, loop
    )
    session_id = made.store.create(chess_request()).found.session_id
    made.store.start(session_id)
    with app.test_request_context():
        Connections(backend, session_id).end(backend)  # what is made once for all is made
        gc.collect()
        guards.shutdown.is_on = False
        before = len(gc.get_objects())
        connections = Connections(backend, session_id)
        gc.collect()
        visited = (len(gc.get_objects()) - before) / COUNT
        gc.disable()
        connections.end(backend)
        left = sum(isinstance(each, Stepped) for each in gc.get_objects())
    print(json.dumps({"visited": visited, "left": left, "ended": connections.ended}))
