"""Hundreds of clients, two web processes, and faults; exact checks at the end. `make stress` runs it for long.

Clients connect, go away, stop reading, send commands and come back to any process, while pub/sub connections are
killed, the store is paused, and a web process is killed and started again. Checked all the time: versions
rise, across reconnects too; an update or a patch follows the version before; applied patches give the state that
others receive. Checked in the end: everybody has the newest state within 5 s; every acknowledged command is one
commit, and versions have no gaps; no connection, subscription, file or memory is left behind.

    python -m pytest tests/system/test_stress.py                  a short form
    STRESS_SECONDS=60 STRESS_CLIENTS=300 STRESS_SEED=7 make stress
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import psutil
import requests

from syncapp.dev.servers import Valkey
from tests.support.cluster import Cluster
from tests.support.patches import apply_patch
from tests.support.raw_websocket import CLOSE, TEXT, ConnectionEnded, RawWebSocket
from tests.support.store import outbox_messages
from tests.support.types import Redis
from tests.support.web_clients import CHESS, RestClient, metric_value, wait_until

SESSIONS = 8
EVENT_OF = {
    "switch": "cycle_switched",
    "update": "metadata_updated",
    "pause": "session_paused",
    "resume": "session_resumed",
    "adjust": "time_adjusted",
}
MOST_GROWTH_BYTES = 80_000_000
Order = tuple[int, int]


class Player:
    """One client, on its own thread."""

    def __init__(self, stress: Stress, number: int) -> None:
        self.stress = stress
        self.chance = random.Random(f"{stress.seed}-{number}")
        self.session_id = stress.sessions[number % SESSIONS]
        self.patches = self.chance.random() < 0.4
        self.known: Order = (0, 0)
        self.state: dict[str, Any] = {}
        self.acked: dict[int, str] = {}
        self.sent = 0
        self.asked: dict[int, str] = {}
        self.fault = ""
        self.seen: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "a client hangs"

    def _run(self) -> None:
        while not self.stress.is_over.is_set() and not self.fault:
            try:
                self._connect()
            except (OSError, ConnectionEnded):
                self.seen["cut off"] += 1
            except AssertionError as error:
                # A killed process, and a client that is too slow, end a stream anywhere.
                if "in the middle of a frame" in str(error):
                    self.seen["cut off"] += 1
                else:
                    self.fault = f"{error}"
            self.stress.is_over.wait(self.chance.uniform(0, 0.2))

    def _connect(self) -> None:
        query = f"{self.session_id}&format={'patch' if self.patches else 'state'}"
        if self.known > (0, 0):
            query += f"&epoch={self.known[0]}&version={self.known[1]}"
        reads_little = self.chance.random() < 0.2
        with RawWebSocket(self.stress.url(self.chance), query, receive_bytes=4096 if reads_little else 0) as raw:
            if raw.status != 101:
                self.seen[f"status {raw.status}"] += 1
                return
            self.seen["connected"] += 1
            end_s = time.monotonic() + self.chance.expovariate(0.5)
            # Clients that are connected at the end stay, to be compared.
            while time.monotonic() < end_s or self.stress.is_ending.is_set():
                if self.stress.is_over.is_set():
                    return
                self._act(raw, reads_little)
            self._leave(raw)

    def _act(self, raw: RawWebSocket, reads_little: bool) -> None:
        if not self.stress.is_ending.is_set():
            if self.chance.random() < 0.3:
                self._command(raw)
            if reads_little and self.chance.random() < 0.1:
                self.seen["stopped reading"] += 1
                self.stress.is_ending.wait(self.chance.uniform(0, 2))
        with suppress(TimeoutError):
            received = raw.next(0.1)
            if received.opcode == CLOSE:
                raise ConnectionEnded(received.code)
            if received.opcode == TEXT:
                self._hear(received.message)

    def _command(self, raw: RawWebSocket) -> None:
        name = self.chance.choice([*EVENT_OF, "switch", "switch"])
        args = {"update": {"metadata": {"n": self.sent}}, "adjust": {"op": "add", "ms": 1000}}.get(name, {})
        self.sent += 1
        self.asked[self.sent] = name
        raw.send({"type": "COMMAND", "id": self.sent, "command": name, "args": args})

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        self.seen[kind] += 1
        if kind == "ACK":
            assert message["version"] not in self.acked, f"two commands are version {message['version']}"
            self.acked[message["version"]] = self.asked[message["id"]]
        elif kind in ("STATE_SYNC", "STATE_UPDATE", "STATE_PATCH"):
            body = message.get("state", message)
            order = (body["epoch"], body["version"])
            assert order > self.known, f"{kind} {order} after {self.known}"
            if kind != "STATE_SYNC":
                assert order == (self.known[0], self.known[1] + 1), f"{kind} {order} after {self.known}"
            self.state = message["state"] if "state" in message else apply_patch(self.state, message)
            self.known = order
            assert (self.state["epoch"], self.state["version"]) == order
        elif kind == "CONNECTED":
            assert (message["epoch"], message["version"]) >= self.known, f"CONNECTED before {self.known}"
        elif kind == "ERROR":
            self.seen[message["code"]] += 1
            assert message["code"] in ("STORE_UNAVAILABLE", "INVALID_STATE_TRANSITION"), message

    def _leave(self, raw: RawWebSocket) -> None:
        how = self.chance.randrange(3)
        if how == 0:
            raw.send((1000).to_bytes(2), CLOSE)
        elif how == 1:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Stress:
    """A run; `run` raises AssertionError when a check fails.

    growth_bytes: how much more memory a web process has after the run.
    """

    def __init__(self, cluster: Cluster, valkey: Valkey, redis_url: str, *, seed: int, clients: int) -> None:
        self.cluster, self.valkey, self.redis_url, self.seed = cluster, valkey, redis_url, seed
        self.chance = random.Random(seed)
        self.is_ending, self.is_over = threading.Event(), threading.Event()
        self.apis = [RestClient(url) for url in cluster.urls]
        self.sessions = [
            self.apis[0].running(participants=[{**each, "total_time_ms": 86_400_000} for each in CHESS["participants"]])
            for _ in range(SESSIONS)
        ]
        self.players = [Player(self, number) for number in range(clients)]
        self.faults: Counter[str] = Counter()
        self.growth_bytes = 0

    def url(self, chance: random.Random) -> str:
        return chance.choice(self.cluster.urls)

    def run(self, seconds: float) -> Counter[str]:
        """Return counts of what happened."""
        worker = psutil.Process(self.cluster.web[0].pid).children()[0]
        files, memory = worker.num_fds(), worker.memory_info().rss
        for player in self.players:
            player.start()
        self._do_harm(time.monotonic() + seconds)
        self.is_ending.set()
        try:
            self._check_convergence()
        finally:
            self.is_over.set()
            for player in self.players:
                player.join()
        self._check_commits()
        self._check_leaks(worker, files)
        self.growth_bytes = worker.memory_info().rss - memory
        seen = sum((player.seen for player in self.players), self.faults)
        assert seen["ACK"] > 10
        assert seen["cut off"]
        return seen

    def _do_harm(self, end_s: float) -> None:
        harms = [self._kill_pubsub, self._pause_store, self._kill_web]
        number = 0
        while time.monotonic() < end_s:
            self._check_faults()
            time.sleep(self.chance.uniform(0.3, 1.0))
            harm = harms[number] if number < len(harms) else self.chance.choice(harms)
            number += 1
            harm()
            self.faults[harm.__name__] += 1

    def _kill_pubsub(self) -> None:
        with Redis.from_url(self.redis_url) as redis:
            redis.client_kill_filter(_type="pubsub")

    def _pause_store(self) -> None:
        self.valkey.pause()
        try:
            time.sleep(self.chance.uniform(0.2, 3.0))
        finally:
            self.valkey.unpause()

    def _kill_web(self) -> None:
        """Kill the second process, because the first one's metrics must not restart."""
        self.cluster.web[1].kill()
        time.sleep(self.chance.uniform(0, 1))
        self.cluster.web[1].start()

    def _check_faults(self) -> None:
        for player in self.players:
            assert not player.fault, f"seed {self.seed}: {player.fault}"

    def _check_convergence(self) -> None:
        """Check that all clients have the newest state: within 5 s, or later on a busy machine."""
        newest: dict[str, dict[str, Any]] = {}

        def behind() -> list[Player]:
            self._check_faults()
            newest.update({session_id: self.apis[0].state(session_id) for session_id in self.sessions})
            return [each for each in self.players if each.known != order_of(newest[each.session_id])]

        began_s = time.monotonic()
        while late := behind():
            left = [(each.known, order_of(newest[each.session_id])) for each in late]
            assert time.monotonic() < began_s + 60, f"seed {self.seed}: {len(late)} are behind: {left[:5]}"
            time.sleep(0.1)
        print(f"everybody knew the newest state after {time.monotonic() - began_s:.1f} s")
        for player in self.players:
            expected = newest[player.session_id]
            # A watch moves idle_at without a commit, so that what was pushed may be older (docs/clock.md, Idle).
            moving = {name: player.state[name] for name in ("server_time_ms", "clock", "idle_at")}
            assert player.state == expected | moving, f"seed {self.seed}"

    def _check_commits(self) -> None:
        """Check that each acknowledged command is in the outbox once, unchanged, and that no version is missing."""
        with Redis.from_url(self.redis_url) as redis:
            for session_id in self.sessions:
                log = {message["version"]: message for message in outbox_messages(redis, session_id)}
                assert sorted(log) == list(range(1, len(log) + 1)), f"seed {self.seed}: holes"
                acked: list[int] = []
                for player in self.players:
                    if player.session_id == session_id:
                        acked += player.acked
                        for version, name in player.acked.items():
                            assert log[version]["event"]["type"] == EVENT_OF[name], f"seed {self.seed}"
                assert len(acked) == len(set(acked)), f"seed {self.seed}: a version was acknowledged twice"
                request_ids = [message["request_id"] for message in log.values()]
                assert len(request_ids) == len(set(request_ids)), f"seed {self.seed}: a command ran twice"

    def _check_leaks(self, worker: psutil.Process, files: int) -> None:
        for url in self.cluster.urls:
            for name in ("syncapp_ws_connections", "syncapp_hub_sessions"):
                wait_until(lambda url=url, name=name: metric_value(url, name) == 0, 90)  # type: ignore[misc]  # a slow client's limit
        with Redis.from_url(self.redis_url) as redis:
            wait_until(lambda: not redis.pubsub_channels())
        wait_until(lambda: worker.num_fds() <= files + 80)  # connections to the store are kept


def order_of(state: dict[str, Any]) -> Order:
    return (state["epoch"], state["version"])


def probe(url: str) -> str:
    """Return the state of a session made for this alone: the process still serves."""
    made = requests.post(f"{url}/v1/sessions", json=CHESS | {"session_id": str(uuid.uuid4())}, timeout=60)
    status: str = made.json()["data"]["status"]
    return status
