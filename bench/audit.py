"""The audit trail: events drained a second, compared with inserts and COPY; time from a commit to its row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg2
import psycopg2.extensions

from bench import drain
from bench.figures import Part, Rounds, figure
from bench.load import Generator, request
from bench.rig import Rig

EVENTS = 50_000
ROUNDS = 5
PROBES = 40
SESSIONS = 200
LOAD_S = 12.0


def run(rig: Rig) -> Part:
    """Measure drains in turns with their floors, then the latency of a worker, idle and under load."""
    rig.flush()
    drain.commit(rig.settings, EVENTS)
    bench = drain.Bench(rig.settings)
    with closing(bench.connection):
        saved = bench.saved()
        runs = [drain.compare(bench, saved, EVENTS)[0] for _ in range(ROUNDS)]
        bench.empty()
    found: dict[str, Rounds] = {name: [[EVENTS / took_s[name]] for took_s in runs] for name in runs[0]}
    with closing(psycopg2.connect(rig.servers.database_url)) as connection:
        connection.autocommit = True
        idle, loaded, rate = latencies(rig, connection)
    floors = {name: (name, found.pop(name)) for name in ("one row a transaction", "COPY")}
    return Part(
        "Audit trail",
        [
            *(figure(name, "events/s", rounds) for name, rounds in floors.values()),
            *(
                figure(f"{name}, to inserts", "events/s", found[name], floors["one row a transaction"])
                for name in found
            ),
            *(figure(f"{name}, to COPY", "events/s", found[name], floors["COPY"]) for name in found),
            figure("commit to row, idle", "ms", [idle]),
            figure("commit to row, under load", "ms", [loaded]),
            figure("commits under load", "commits/s", [[rate]]),
        ],
        [
            f"{EVENTS:,} events of {EVENTS // (drain.SWITCHES + 2)} sessions; PostgreSQL with fsync on.",
            "`drain, 4 × 1` means four worker processes of one thread each.",
            "The floors store the same rows in the same table; COPY stores all of them in one transaction.",
            "A drain also reads, checks and acknowledges the events, and updates sessions and totals.",
            "`commit to row` ends when another connection sees the row. The load is 16 connections to one web process.",
        ],
    )


def latencies(rig: Rig, connection: psycopg2.extensions.connection) -> tuple[list[float], list[float], float]:
    """Return ms from commits to rows, idle and under load, and the commits a second of the load."""
    rig.flush()
    sessions = [rig.session() for _ in range(SESSIONS)]
    requests = [request("POST", f"/v1/sessions/{each}/switch") for each in sessions]
    with rig.web(1) as web, rig.worker(), Generator() as generator:
        probe = Probe(connection, web.port, rig.session(), generator)
        probe.measure(5)
        idle = probe.measure(PROBES)
        rates: list[float] = []
        with (
            Generator() as other,
            _in_background(lambda: rates.append(other.load(web.port, requests, 16, LOAD_S).rate)),
        ):
            time.sleep(2)
            loaded = probe.measure(int(PROBES / 2), until_s=time.monotonic() + LOAD_S - 3)
    return idle, loaded, rates[0]


class Probe:
    """Makes commits through a web process, and waits for their rows."""

    def __init__(
        self, connection: psycopg2.extensions.connection, port: int, session_id: str, generator: Generator
    ) -> None:
        self._connection = connection
        self._port = port
        self._session_id = session_id
        self._generator = generator
        self._version = 2  # created, started

    def measure(self, count: int, until_s: float = float("inf")) -> list[float]:
        """Return the ms from each commit's answer to its row."""
        switch = [request("POST", f"/v1/sessions/{self._session_id}/switch")]
        found: list[float] = []
        with self._connection.cursor() as cursor:
            while len(found) < count and time.monotonic() < until_s:
                self._generator.load(self._port, switch, 1, 0)
                began_s = time.monotonic()
                self._version += 1
                while not self._is_there(cursor):
                    if time.monotonic() - began_s > 30:
                        raise TimeoutError("an event has not reached PostgreSQL in 30 s")
                    time.sleep(0.003)
                found.append((time.monotonic() - began_s) * 1000)
                time.sleep(0.05)
        return found

    def _is_there(self, cursor: psycopg2.extensions.cursor) -> bool:
        cursor.execute(
            "SELECT 1 FROM sync_events WHERE session_id = %s AND version = %s", (self._session_id, self._version)
        )
        return cursor.fetchone() is not None


@contextmanager
def _in_background(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join()
