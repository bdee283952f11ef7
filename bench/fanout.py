"""Fan-out: from a switch to the first and the last client, compared with a bare loop that writes the same bytes."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import psutil

from bench.crowd import UPDATE, Crowd
from bench.figures import Figure, Part, figure, value
from bench.rig import Rig

SIZES = (1, 100, 1000, 3000)
ROUNDS = 12

_context = multiprocessing.get_context("spawn")


def run(rig: Rig) -> Part:
    """Measure fan-out at each number of clients, in turns with its floor, and memory of idle connections."""
    figures: list[Figure] = []
    with rig.web(1) as web:
        processes = psutil.Process(web.pid).children(recursive=True)
        for size in SIZES:
            session_id = rig.session()
            before = sum(each.memory_info().rss for each in processes)
            with Crowd() as crowd, Crowd() as theirs, bare_writer(size, theirs) as writer:
                crowd.connect(web.port, [session_id] * size)
                rig.store.switch(session_id)
                crowd.heard(UPDATE)
                if size == SIZES[-1]:
                    after = sum(each.memory_info().rss for each in processes)
                    figures.append(value("memory of a connection", "kB", (after - before) / size / 1000))
                figures += fan_out(rig, size, session_id, crowd, theirs, writer)
    return Part(
        "Fan-out",
        figures,
        [
            "Time from the call of the switch, in another process, to the complete message; one web process.",
            "The floor is a loop that sends the same bytes to as many sockets, measured from its first send.",
        ],
    )


def fan_out(rig: Rig, size: int, session_id: str, crowd: Crowd, theirs: Crowd, writer: Connection) -> list[Figure]:
    """Return the figures of one number of clients."""
    frame = crowd.last()
    first: list[list[float]] = []
    last: list[list[float]] = []
    floor: list[list[float]] = []
    for _ in range(ROUNDS):
        theirs.arm()
        writer.send(frame)
        began = writer.recv()
        floor.append([(max(theirs.heard(UPDATE)) - began) / 1000])
        crowd.arm()
        time.sleep(0.02)
        began = time.monotonic_ns()
        rig.store.switch(session_id)
        times = crowd.heard(UPDATE)
        first.append([(min(times) - began) / 1000])
        last.append([(max(times) - began) / 1000])
    name = f"bare loop, last of {size:,}"
    return [
        figure(name, "µs", floor),
        figure(f"first of {size:,} clients", "µs", first),
        figure(f"last of {size:,} clients", "µs", last, (name, floor)),
    ]


@contextmanager
def bare_writer(size: int, crowd: Crowd) -> Iterator[Connection]:
    """Start a process that writes to so many sockets; yield the pipe that takes bytes and returns its start."""
    pipe, theirs = _context.Pipe()
    process = _context.Process(target=_write, args=(theirs, size), daemon=True)
    process.start()
    try:
        crowd.connect(pipe.recv(), [""] * size, bare=True)
        pipe.recv()
        yield pipe
    finally:
        pipe.close()
        process.join(5)
        process.kill()


def _write(pipe: Connection, size: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        pipe.send(server.getsockname()[1])
        sockets = [server.accept()[0] for _ in range(size)]
    pipe.send("connected")
    try:
        while True:
            frame = pipe.recv()
            began = time.monotonic_ns()
            for each in sockets:
                each.sendall(frame)
            pipe.send(began)
    except EOFError:
        return
