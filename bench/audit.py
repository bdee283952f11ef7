"""The audit trail: events drained a second, against inserts and COPY; and the way from a commit to its row."""

from __future__ import annotations

import io
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg2
import psycopg2.extensions

from bench.figures import Part, Rounds, figure
from bench.load import Generator, request
from bench.rig import Rig
from syncapp import redis
from syncapp.audit import AuditLog
from syncapp.db import Database
from syncapp.drains import Drain
from syncapp.outbox import Outbox

EVENTS = 8000
ROUNDS = 3
INSERTS = 800
PROBES = 40
SESSIONS = 200
LOAD_S = 12.0

_TABLE = """
CREATE TABLE bench_rows (session_id uuid, epoch bigint, version bigint, payload jsonb,
                         PRIMARY KEY (session_id, epoch, version))
"""


def run(rig: Rig) -> Part:
    """Measure the drain by turns with its floors, then latency of a worker, idle and under load."""
    with closing(psycopg2.connect(rig.servers.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(_TABLE)
        found: dict[str, Rounds] = {"insert": [], "COPY": [], "drain": []}
        for _ in range(ROUNDS):
            rows = outbox_rows(rig)
            found["insert"].append([inserted(connection, rows[:INSERTS])])
            found["COPY"].append([copied(connection, rows)])
            found["drain"].append([drained(rig)])
        idle, loaded, rate = latencies(rig, connection)
    insert, copy = ("one row a transaction", found["insert"]), ("COPY", found["COPY"])
    return Part(
        "Audit trail",
        [
            figure("one row a transaction", "events/s", found["insert"]),
            figure("COPY", "events/s", found["COPY"]),
            figure("drain, to inserts", "events/s", found["drain"], insert),
            figure("drain, to COPY", "events/s", found["drain"], copy),
            figure("commit to row, idle", "ms", [idle]),
            figure("commit to row, under load", "ms", [loaded]),
            figure("commits under load", "commits/s", [[rate]]),
        ],
        [
            f"{EVENTS:,} events of {SESSIONS} sessions, one thread; PostgreSQL with fsync on.",
            "The floors store the same JSON in one table with the same key; the drain also keeps sessions and totals.",
            "To the row is until another connection sees it. The load is 16 connections to one web process.",
        ],
    )


def outbox_rows(rig: Rig) -> list[tuple[str, int, int, str]]:
    """Fill the outboxes; return key and JSON of each event."""
    ids = [rig.session() for _ in range(SESSIONS)]
    for place in range(EVENTS - 2 * SESSIONS):
        rig.store.switch(ids[place % SESSIONS])
    return [(str(uuid.uuid4()), at_ms, 1, raw.decode()) for at_ms, raw in rig.outbox()]


def inserted(connection: psycopg2.extensions.connection, rows: list[tuple[str, int, int, str]]) -> float:
    """Return rows a second, one a transaction."""
    with connection.cursor() as cursor:
        began_s = time.monotonic()
        for row in rows:
            cursor.execute("INSERT INTO bench_rows VALUES (%s, %s, %s, %s)", row)
        took_s = time.monotonic() - began_s
        cursor.execute("TRUNCATE bench_rows")
    return len(rows) / took_s


def copied(connection: psycopg2.extensions.connection, rows: list[tuple[str, int, int, str]]) -> float:
    """Return rows a second, all in one COPY."""
    text = "".join(f"{key}\t{epoch}\t{version}\t{raw}\n" for key, epoch, version, raw in rows)
    with connection.cursor() as cursor:
        began_s = time.monotonic()
        cursor.copy_expert("COPY bench_rows FROM STDIN", io.StringIO(text.replace("\\", "\\\\")))
        took_s = time.monotonic() - began_s
        cursor.execute("TRUNCATE bench_rows")
    return len(rows) / took_s


def drained(rig: Rig) -> float:
    """Drain all buckets in one thread; return events a second."""
    client = redis.connect(rig.settings, decode=False)
    outbox = Outbox(client, rig.keys)
    database = Database(rig.settings.database_url)
    drain = Drain(outbox, AuditLog(database), batch=rig.settings.audit_batch)
    began_s = time.monotonic()
    moved = sum(drain.run(bucket).moved for bucket in outbox.buckets)
    took_s = time.monotonic() - began_s
    database.close()
    client.close()
    return moved / took_s


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
    """Makes a commit through a web process, and looks for its row."""

    def __init__(
        self, connection: psycopg2.extensions.connection, port: int, session_id: str, generator: Generator
    ) -> None:
        self._connection = connection
        self._port = port
        self._session_id = session_id
        self._generator = generator
        self._version = 2  # created, started

    def measure(self, count: int, until_s: float = float("inf")) -> list[float]:
        """Return ms from each commit's answer to its row."""
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
