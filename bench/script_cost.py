"""The server time of each command, at 2, 10, 100 and 1,000 participants, in every mode.

    .venv/bin/python -m bench.script_cost [mode ...]

Starts a private Valkey. A number is the lower quartile of the time in µs that the server spent in one call of
the script, from `INFO commandstats`: no network, no Python. The clock is set, so that timeouts happen when they
are needed; one GET replaces TIME. Calls come from a process that has the session in its cache, as they
mostly do; `get, unknown` comes from one that has not, and receives the whole session.

`create` writes every participant. `complete`, `cancel` and the timeout that ends a session store the whole state
with their event. A group's timeout marks its members. The others should not depend on the number of participants.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis as redis_py

from syncapp.config import Settings
from syncapp.dev.servers import Valkey
from syncapp.domain.results import ExpiryResult
from syncapp.domain.schemas import CreateSession
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore

COUNTS = (2, 10, 100, 1000)
ROUNDS, CALLS, GARBAGE = 5, 20, 200
NOON_MS = 4_102_488_000_000
CLOCK = {"_clock": "local function server_now_ms() return tonumber(redis.call('GET', 'bench:now_ms')) end"}
MODES: dict[str, dict[str, Any]] = {
    "per_participant": {"sync_mode": "per_participant", "increment_ms": 1000},
    "per_cycle": {"sync_mode": "per_cycle", "time_per_cycle_ms": 60_000},
    "per_group of two": {"sync_mode": "per_group", "increment_ms": 1000},
    "per_group in two": {"sync_mode": "per_group", "increment_ms": 1000},
    "global": {"sync_mode": "global", "total_time_ms": 60_000},
    "count_up": {"sync_mode": "count_up", "max_time_ms": 60_000},
}


def body(mode: str, count: int) -> dict[str, Any]:
    """Return a create request of a mode with so many participants."""
    people: list[dict[str, Any]] = [{"participant_id": f"participant-{i}"} for i in range(count)]
    if mode.startswith(("per_participant", "per_group")):
        people = [person | {"total_time_ms": 60_000} for person in people]
    if mode.startswith("per_group"):
        groups = 2 if mode == "per_group in two" else count // 2
        people = [person | {"group_id": f"group-{i % groups}"} for i, person in enumerate(people)]
    return MODES[mode] | {"participants": people}


class Bench:
    """Sessions of a mode and size; `session` is the current one, `lasting` one that receives many commands."""

    def __init__(self, client: redis_py.Redis, url: str, mode: str, count: int) -> None:
        self.client, self.url = client, url
        self.store = self.new_store()
        self.stranger = self.new_store()
        self.body = body(mode, count)
        self.now_ms = NOON_MS
        self.pass_ms(0)
        self.little = self.store.create(CreateSession.parse({"sync_mode": "count_up"})).found.session_id
        self.run()
        self.lasting = self.session

    def new_store(self) -> SessionStore:
        """Return a store with an empty cache."""
        settings = Settings(redis_url=self.url)
        return SessionStore(connect(settings), settings, partials=CLOCK)

    def pass_ms(self, ms: int) -> None:
        """Set the clock forward."""
        self.now_ms += ms
        self.client.set("bench:now_ms", self.now_ms)

    def create(self, **more: Any) -> None:
        """Create another session."""
        self.session = self.store.create(CreateSession.parse(self.body | more)).found.session_id

    def run(self, **more: Any) -> None:
        """Create another session and start it."""
        self.create(**more)
        self.store.start(self.session)

    def rest(self) -> None:
        """Create another session, start it and pause it."""
        self.run()
        self.store.pause(self.session)

    def due(self, after_ms: int = 60_000, **more: Any) -> None:
        """Create and start another session, and let so much time pass."""
        self.run(**more)
        if self.body["sync_mode"] == "per_group":  # a group's budget is the sum of its members'
            after_ms = self.store.get(self.session).found.groups[0].time_remaining_ms - 60_000 + after_ms
        self.pass_ms(after_ms)

    def spent_us(self, made: Callable[[], object] | None, call: Callable[[], object]) -> list[int]:
        """Return the server's time for each of some calls, in µs: each on its own session if `made` makes one.

        Creating the sessions does not count, nor does collecting the garbage of it.
        """
        sessions, start_ms = [], self.now_ms
        for _ in range(CALLS if made else 0):
            self.pass_ms(start_ms - self.now_ms)
            if made:
                made()
            sessions.append(self.session)
        for _ in range(GARBAGE if made else 0):
            self.store.get(self.little)
        spent = []
        for session in sessions or [self.lasting] * CALLS:
            self.session = session
            self.client.config_resetstat()
            call()
            stats: Any = self.client.info("commandstats")
            spent.append(stats["cmdstat_fcall"]["usec"])
        return spent

    def steps(self) -> dict[str, tuple[Callable[[], object] | None, Callable[[], object]]]:
        """Return, for each command, what makes its session (None for the lasting one), and the command."""
        store, last = self.store, self.body["participants"][-1]["participant_id"]

        def times_out(action: str) -> Callable[[], None]:
            return lambda: self.due(action_on_timeout={"type": action})

        def expire() -> None:
            (expired,) = store.expire([self.session])
            assert isinstance(expired, ExpiryResult)
            assert expired.instants_ms

        def stranger() -> None:
            self.stranger._runner._cache._sessions.clear()
            self.stranger.get(self.session)

        return {
            "get": (None, lambda: store.get(self.session)),
            "get, unknown": (None, stranger),
            "switch": (None, lambda: store.switch(self.session)),
            "switch to the last": (None, lambda: store.switch(self.session, next_participant_id=last)),
            "adjust": (None, lambda: store.adjust(self.session, op="add", ms=1)),
            "update": (None, lambda: store.update(self.session, {"a": 1})),
            "start": (self.create, lambda: store.start(self.session)),
            "pause": (self.run, lambda: store.pause(self.session)),
            "resume": (self.rest, lambda: store.resume(self.session)),
            "warning": (lambda: self.due(30_000, warn_at_ms=[30_000]), expire),
            "timeout, notify": (times_out("notify"), expire),
            "timeout, skip_cycle": (times_out("skip_cycle"), expire),
            "timeout, end_session": (times_out("end_session"), expire),
            "complete": (self.run, lambda: store.complete(self.session)),
            "cancel": (self.run, lambda: store.cancel(self.session)),
            "delete": (self.run, lambda: store.delete(self.session)),
            "create": (None, self.create),
        }


def main() -> None:
    """Print a table for each mode."""
    with tempfile.TemporaryDirectory(prefix="syncapp-bench-") as directory:
        valkey = Valkey(Path(directory), Path(directory) / "valkey")
        valkey.spawn()
        try:
            valkey.wait_ready()
            with redis_py.Redis.from_url(valkey.url) as client:
                for mode in sys.argv[1:] or MODES:
                    client.flushdb()
                    benches = [Bench(client, valkey.url, mode, count) for count in COUNTS]
                    print(f"\n{mode:22}" + "".join(f"{count:8,}" for count in COUNTS))
                    for name in benches[0].steps():
                        spent: list[list[int]] = [[] for _ in COUNTS]
                        for _ in range(ROUNDS):  # in turns, so that other load of the machine affects all equally
                            for bench, found in zip(benches, spent, strict=True):
                                found.extend(bench.spent_us(*bench.steps()[name]))
                        costs = [statistics.quantiles(found)[0] for found in spent]
                        print(f"{name:22}" + "".join(f"{cost:8.0f}" for cost in costs), flush=True)
        finally:
            valkey.stop()


if __name__ == "__main__":
    main()
