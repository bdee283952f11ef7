"""Client processes: each does what its parent asks for through a pipe."""

from __future__ import annotations

from multiprocessing.connection import Connection


def serve(pipe: Connection, clients: object) -> None:
    """Call the methods that the other end names, and send back what they return or raise, until it closes."""
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(clients, name)(*arguments))
        except Exception as error:  # noqa: BLE001 the caller raises it
            pipe.send(error)
