"""Runs inside a build: calls its `SessionStore` as its web process does, so that the scripts are those of the build.

It imports nothing of this benchmark, and reads one JSON list a line, the name of a function and its arguments; the
answer is one JSON value a line. `Build` starts it with the build's directory as PYTHONPATH.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import socket
import sys
from typing import Any


def _found(name: str, *modules: str) -> Any:
    """Return a name of the first of the modules that this build has; modules were moved from release to release."""
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("syncapp."):
                raise
    raise LookupError(f"this build has none of {', '.join(modules)}")


Settings = _found("Settings", "syncapp.config")
SessionStore = _found("SessionStore", "syncapp.store.sessions", "syncapp.sessions")
CreateSession = _found("CreateSession", "syncapp.domain.schemas", "syncapp.models")
Claim = _found("Claim", "syncapp.domain.results", "syncapp.commands")
connect = _found("connect", "syncapp.store.client", "syncapp.redis")


class Agent:
    """A store of the build, on the servers of the environment."""

    def __init__(self) -> None:
        settings = Settings.from_env(dict(os.environ))
        self.store = SessionStore(connect(settings), settings)
        self.buckets = settings.sync_buckets
        self.number = 0

    def sessions(self, count: int, participants: int) -> list[str]:
        """Create and start sessions with a day for each participant; return their ids."""
        people = [{"participant_id": f"p{place}", "total_time_ms": 86_400_000} for place in range(participants)]
        body = {"sync_mode": "per_participant", "increment_ms": 1000, "participants": people}
        ids = [self.store.create(CreateSession.parse(body)).found.session_id for _ in range(count)]
        for each in ids:
            self.store.start(each)
        return ids

    def switch(self, ids: list[str], times: int, with_key: bool) -> None:
        """Switch sessions in turn; with_key: with a new idempotency key each."""
        for _ in range(times):
            for each in ids:
                self.number += 1
                claim = {"idempotency_key": f"bench-{self.number}"} if with_key else {}
                self.store.switch(each, Claim(**claim))

    def drains(self) -> None:
        """Ask the worker to drain every bucket."""
        enqueue = _found("enqueue_drain", "syncapp.tasks")
        for bucket in range(self.buckets):
            enqueue(bucket)

    def recorded(self, ids: list[str]) -> list[str]:
        """Switch each session once; return the bytes that each call sent to the server, in base64."""
        sent: list[bytes] = []
        for name in ("send", "sendall"):
            plain = getattr(socket.socket, name)

            def noted(self: socket.socket, data: Any, *rest: Any, plain: Any = plain) -> Any:
                sent.append(bytes(data))
                return plain(self, data, *rest)

            setattr(socket.socket, name, noted)
        found = []
        for each in ids:
            sent.clear()
            self.store.switch(each)
            found.append(base64.b64encode(b"".join(sent)).decode())
        return found

    def due(self, after_ms: list[int], ahead_ms: int) -> float:
        """Start sessions whose time is up so many ms after a common instant, `ahead_ms` from now.

        Returns the ms from the end of this call to that instant; negative if it took too long.
        """
        ids = self.sessions(len(after_ms), 2)
        deadlines_ms = [self.store.get(each).found.clock(0)["deadline_ms"] for each in ids]
        common_ms = self.store.time_ms() + ahead_ms
        for each, deadline_ms, after in zip(ids, deadlines_ms, after_ms, strict=True):
            self.store.adjust(each, op="add", ms=common_ms + after - deadline_ms)
        return float(common_ms - self.store.time_ms())


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the build prints is no answer
    agent = Agent()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(getattr(agent, name)(*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
