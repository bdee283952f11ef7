"""Clients of web processes: REST, and WebSockets by an independent library.

Timeouts are long, for busy machines; waits normally end much sooner.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from syncapp.api.reference.messages import SENT
from syncapp.realtime.protocol import Outgoing
from tests.support.cluster import Cluster

CHESS: dict[str, Any] = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 3_600_000} for name in ("white", "black")],
}


class RestClient:
    """A REST client of one web process."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self._http = requests.Session()
        self._http.headers.update(self.headers)

    def create(self, **more: Any) -> str:
        made = self._http.post(f"{self.url}/v1/sessions", json=CHESS | more, timeout=60)
        assert made.status_code == 201, made.text
        session_id: str = made.json()["data"]["session_id"]
        return session_id

    def running(self, **more: Any) -> str:
        session_id = self.create(**more)
        self.command(session_id, "start")
        return session_id

    def command(self, session_id: str, name: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(f"{self.url}/v1/sessions/{session_id}/{name}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()["data"]
        return state

    def state(self, session_id: str) -> dict[str, Any]:
        state: dict[str, Any] = self._http.get(f"{self.url}/v1/sessions/{session_id}", timeout=60).json()["data"]
        return state

    def delete(self, session_id: str) -> None:
        assert self._http.delete(f"{self.url}/v1/sessions/{session_id}", timeout=60).status_code == 204


class WebSocketClient:
    """A WebSocket client, by an independent library."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def next(self, kind: str = "", within_s: float = 60) -> dict[str, Any]:
        end_s = time.monotonic() + within_s
        while True:
            text = self.connection.recv(timeout=max(0.01, end_s - time.monotonic()))
            message: dict[str, Any] = json.loads(text)
            SENT[Outgoing(message["type"])].model_validate_json(text)
            if kind in ("", message["type"]):
                return message

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def ask(self, **message: Any) -> dict[str, Any]:
        self.send(**message)
        return self.next()

    def silent(self, for_s: float = 0.3) -> bool:
        with suppress(TimeoutError):
            self.next(within_s=for_s)
            return False
        return True

    def close_code(self) -> int | None:
        with suppress(ConnectionClosed):
            while True:
                self.connection.recv(timeout=60)
        return self.connection.close_code


OpenWebSocket = Callable[..., WebSocketClient]


def metric_value(url: str, name: str, headers: Mapping[str, str] | None = None) -> float:
    answer = requests.get(f"{url}/metrics", headers=headers, timeout=60)
    assert answer.status_code == 200
    text = answer.text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def wait_until(check: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until `check` returns something true."""
    end_s = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < end_s, "it did not become true in time"
        time.sleep(0.01)


def logged_errors(cluster: Cluster) -> list[str]:
    """Return the errors that web processes have logged; warnings about an unavailable store are not errors."""
    lines = [line for process in cluster.web for line in process.output().splitlines()]
    return [line for line in lines if re.search(r"Traceback|\[error|\[critical|\[ERROR\]|Exception", line)]
