"""What WebSockets cost: time to the first and the last client, memory of idle ones, commands compared with REST.

    python -m bench.connections fanout --clients 1000       from a switch to each client, beside a bare loop
    python -m bench.connections idle --clients 5000         memory for each connection; --per-session 2: two a session
    python -m bench.connections commands --connections 64   commands a second and their latency, over sockets and REST

Starts one web process and a private Valkey on this machine; clients share its cores. It connects to nothing else.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import selectors
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from syncapp.dev.ports import free_port
from syncapp.dev.processes import end_leftovers
from syncapp.dev.runner import NO_LIMITS, Web, app_env
from syncapp.dev.servers import Servers
from syncapp.postgres.schema import upgrade

CHESS = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 86_400_000} for name in ("white", "black")],
}


class Server:
    """One web process, and how to send it requests."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.address = (str(urlsplit(web.url).hostname), int(urlsplit(web.url).port or 0))
        self.http = HTTPConnection(*self.address, timeout=30)

    def post(self, path: str, body: Any = None) -> Any:
        """Send a request, and return its answer."""
        self.http.request("POST", path, json.dumps(body or {}), {"Content-Type": "application/json"})
        answer = self.http.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)["data"]

    def running(self) -> str:
        """Create a session and start it; return its id."""
        session_id: str = self.post("/v1/sessions", CHESS)["session_id"]
        self.post(f"/v1/sessions/{session_id}/start")
        return session_id

    def worker(self) -> psutil.Process:
        """Return the process that serves requests."""
        return psutil.Process(self.web.pid).children()[0]


@contextmanager
def server(**env: str) -> Iterator[Server]:
    """Run a web process with private stores."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
    try:
        with Servers(directory, "", "") as servers:
            own = {"HOST": "127.0.0.1", "PORT": str(free_port()), "WEB_CONCURRENCY": "1", "TMPDIR": str(directory)}
            limits = {"WS_MAX_CONNECTIONS": "12000", "WS_MAX_CONNECTIONS_PER_SESSION": "12000", "LOG_LEVEL": "WARNING"}
            limits |= {"WS_MAX_CONNECTIONS_PER_ADDRESS": "12000", "WS_MESSAGES_PER_S": "100000"}
            limits |= {"WS_MESSAGES_BURST": "100000", "WS_DRAIN_S": "0"}
            upgrade(servers.database_url)
            web = Web(
                app_env(os.environ, servers, **NO_LIMITS, **own, **limits, **env),
                directory=directory,
                output=directory / "log",
            )
            web.start()
            try:
                yield Server(web)
            finally:
                web.stop()
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory)


def opened(address: tuple[str, int], session_id: str) -> socket.socket:
    """Return a WebSocket that has received its first messages."""
    client = socket.create_connection(address)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        f"GET /ws?sessionId={session_id} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    data = b""
    while b"STATE_SYNC" not in data or not data.endswith(b"}"):
        data += client.recv(65536)
    return client


def frame(payload: bytes) -> bytes:
    """Return a client's text frame; its mask is zero."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + b"\0\0\0\0" + payload


# To all clients of a session.


def watch(address: tuple[str, int], session_id: str, count: int, pipe: Any) -> None:
    """Open connections, and for each round report when the first and the last one had a complete frame.

    session_id: empty for a bare loop, which announces how much it sends.
    """
    selector = selectors.DefaultSelector()
    for _ in range(count):
        client = opened(address, session_id) if session_id else socket.create_connection(address)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ, client)
    pipe.send("ready")
    while (expected := pipe.recv()) is not None:
        pipe.send("go")
        waiting: dict[int, int] = {}
        first_s = last_s = 0.0
        done = 0
        while done < count:
            for key, _ in selector.select(10):
                data = key.data.recv(65536)
                last_s = time.monotonic()
                if len(data) > 10:  # not a ping
                    first_s = first_s or last_s
                waiting[key.fd] = waiting.get(key.fd, 0) + len(data)
                if waiting[key.fd] >= expected:
                    done += 1
        pipe.send((first_s, last_s))


def rounds(pipe: Any, expected: int, count: int, act: Any) -> list[tuple[float, float]]:
    """Return, for each round, the ms from its beginning to the first and the last client."""
    found = []
    for _ in range(count):
        pipe.send(expected)
        pipe.recv()
        time.sleep(0.02)
        began_s = time.monotonic()
        act()
        first_s, last_s = pipe.recv()
        found.append(((first_s - began_s) * 1000, (last_s - began_s) * 1000))
        time.sleep(0.1)
    pipe.send(None)
    return found


def shown(name: str, found: list[tuple[float, float]]) -> float:
    """Print rounds; return the median of the last client."""
    first, last = (statistics.median(column) for column in zip(*found, strict=True))
    worst = max(last_ms for _, last_ms in found)
    print(
        f"{name:24} first {first:7.2f} ms   last {last:7.2f} ms   (median of {len(found)}; worst last {worst:.1f} ms)"
    )
    return float(last)


def fanout(clients: int, repeats: int) -> None:
    """Measure the time from a switch to the first and the last client, and a bare loop that writes as many bytes."""
    ours, theirs = multiprocessing.Pipe()
    with server() as found:
        session_id = found.running()
        with opened(found.address, session_id) as one:
            found.post(f"/v1/sessions/{session_id}/switch")
            time.sleep(0.5)
            expected = len(one.recv(1 << 20))
        watcher = multiprocessing.Process(target=watch, args=(found.address, session_id, clients, theirs))
        watcher.start()
        assert ours.recv() == "ready"
        last = shown(
            f"{clients} WebSockets",
            rounds(ours, expected - 40, repeats, lambda: found.post(f"/v1/sessions/{session_id}/switch")),
        )
        watcher.join()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    watcher = multiprocessing.Process(target=watch, args=(listener.getsockname(), "", clients, theirs))
    watcher.start()
    sockets = [listener.accept()[0] for _ in range(clients)]
    assert ours.recv() == "ready"
    payload = b"x" * expected

    def write() -> None:
        for each in sockets:
            each.sendall(payload)

    bare = shown("a bare loop", rounds(ours, expected, repeats, write))
    watcher.join()
    print(f"{expected} bytes each; the last WebSocket takes {last / bare:.2f} times as long as in a bare loop")


# Idle connections.


def idle(clients: int, per_session: int) -> None:
    """Measure the memory of idle connections, of all to one session or of some to each; its sessions come on top."""
    with server() as found:
        session_id = found.running()
        sessions = [found.running() for _ in range(clients // per_session)] if per_session else []
        watched = [each for each in sessions for _ in range(per_session)] or [session_id] * clients
        opened(found.address, session_id)
        worker = found.worker()
        time.sleep(1)
        before = worker.memory_info().rss
        began_s = time.monotonic()
        sockets = [opened(found.address, each) for each in watched]
        took_s = time.monotonic() - began_s
        time.sleep(2)
        after = worker.memory_info().rss
        print(f"{clients} connections opened in {took_s:.1f} s: {(after - before) / clients / 1000:.1f} kB each")
        for each in sockets:
            each.sendall(frame(b'{"type":"PING","t0":1}'))
        time.sleep(3)
        spoken = worker.memory_info().rss
        print(f"after a message from each: {(spoken - before) / clients / 1000:.1f} kB each")
        cpu_s = sum(worker.cpu_times()[:2])
        time.sleep(10)
        print(f"idle: {(sum(worker.cpu_times()[:2]) - cpu_s) * 10:.1f} % of a core")
        began_s = time.monotonic()
        found.post(f"/v1/sessions/{session_id}/switch")
        print(f"a switch is answered in {(time.monotonic() - began_s) * 1000:.1f} ms")


# Commands.


def play(address: tuple[str, int], session_id: str, over: str, until_s: float, out: list[float]) -> None:
    """Send one command after the other, and record the time of each."""
    if over == "rest":
        http = HTTPConnection(*address, timeout=30)
        headers = {"Content-Type": "application/json"}
        while (began_s := time.monotonic()) < until_s:
            http.request("POST", f"/v1/sessions/{session_id}/switch", "{}", headers)
            http.getresponse().read()
            out.append(time.monotonic() - began_s)
        return
    client = opened(address, session_id)
    asked = frame(b'{"type":"COMMAND","id":1,"command":"switch"}')
    while (began_s := time.monotonic()) < until_s:
        client.sendall(asked)
        data = b""
        while b'"ACK"' not in data:
            data += client.recv(65536)
        out.append(time.monotonic() - began_s)


def player(address: tuple[str, int], sessions: list[str], over: str, seconds: float, queue: Any) -> None:
    """Play all sessions at once; put the time of each command, in s."""
    outs: list[list[float]] = [[] for _ in sessions]
    until_s = time.monotonic() + seconds
    threads = [
        threading.Thread(target=play, args=(address, session_id, over, until_s, out))
        for session_id, out in zip(sessions, outs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.put([took for out in outs for took in out])


def commands(connections: int, seconds: float) -> None:
    """Measure commands: each connection plays its own session, and the clients are a separate process."""
    with server() as found:
        rates = {}
        for over in ("rest", "socket", "rest", "socket"):
            sessions = [found.running() for _ in range(connections)]
            queue: Any = multiprocessing.Queue()
            cpu_s = sum(found.worker().cpu_times()[:2])
            process = multiprocessing.Process(target=player, args=(found.address, sessions, over, seconds, queue))
            process.start()
            took = sorted(queue.get())
            process.join()
            used_s = sum(found.worker().cpu_times()[:2]) - cpu_s
            rates[over] = len(took) / seconds
            middle, high = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
            print(
                f"{over:7} {connections} connections: {rates[over]:6.0f} commands/s, median {middle:.2f} ms,"
                f" p99 {high:.2f} ms, {used_s / len(took) * 1e6:.0f} µs of the process each"
            )
        print(f"sockets do {rates['socket'] / rates['rest']:.2f} times as many as REST")


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fanout", "idle", "commands"))
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--per-session", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    with suppress(KeyboardInterrupt):
        if asked.what == "fanout":
            fanout(asked.clients, asked.repeats)
        elif asked.what == "idle":
            idle(asked.clients, asked.per_session)
        else:
            commands(asked.connections, asked.seconds)


if __name__ == "__main__":
    main()
