"""How fast waiting events drain into PostgreSQL, beside a bare COPY of the same rows and inserts of one row each.

    python -m bench.drain [events] [--profile]

Private servers with their default durability (fsync on). The events are real: commits of sessions of two, made by the
store. Worker processes share the buckets as they do in production. Each method runs `ROUNDS` times, in turns, because
the machine may have other load; the best round of each counts.
"""

from __future__ import annotations

import cProfile
import io
import multiprocessing
import pstats
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import redis as redis_py

from syncapp.audit.copy_format import COLUMNS
from syncapp.audit.drain import Drain, collect_rarely
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.config import Settings
from syncapp.dev.servers import Servers
from syncapp.domain.results import NO_CLAIM
from syncapp.domain.schemas import CreateSession
from syncapp.postgres.database import Database
from syncapp.postgres.schema import upgrade
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore

ROUNDS = 3
WORKERS = ((1, 4), (4, 1))
"""How many processes, of how many threads each; the first is what `make run` starts."""
SWITCHES = 98
SINGLES = 1000
TABLES = "sync_events, sync_sessions, sync_participants, sync_dead_letters"


def commit(settings: Settings, events: int) -> None:
    """Leave so many events in the outboxes: of sessions of two participants, each switched 98 times, in turns."""
    store = SessionStore(connect(settings), settings)
    people = [{"participant_id": name, "total_time_ms": 86_400_000} for name in ("white", "black")]
    chess = {"sync_mode": "per_participant", "participants": people}
    made = [store.create(CreateSession.parse(chess)).found.session_id for _ in range(events // (SWITCHES + 2))]
    for session_id in made:
        store.start(session_id, NO_CLAIM)
    for _ in range(SWITCHES):
        for session_id in made:
            store.switch(session_id)


def timed(work: Callable[[], Any]) -> float:
    """Return how long (s) it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def work(settings: Settings, threads: int, buckets: Any, barrier: Any) -> None:
    """Act as a worker: drain buckets with several threads until none is left."""
    collect_rarely()
    keys = Keyspace(settings.sync_buckets)
    client, database = connect(settings, decode=False), Database(settings.database_url)
    drain = Drain(
        Outbox(client, keys), AuditLog(database), batch=settings.audit_batch, count=QueueCounts(client, keys).add
    )

    def take() -> None:
        while (bucket := buckets.get()) is not None:
            drain.run(bucket)

    takers = [threading.Thread(target=take) for _ in range(threads)]
    barrier.wait()
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    barrier.wait()
    database.close()


class Bench:
    """The stores, and the methods of filling PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = redis_py.Redis.from_url(settings.redis_url)
        self.keys = Keyspace(settings.sync_buckets)
        self.connection = psycopg2.connect(settings.database_url)
        self.connection.autocommit = True
        self.run("SET syncapp.allow_changes = 'on'")

    def run(self, query: str, *arguments: Any) -> list[Any]:
        """Run a statement in its own transaction."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Empty the log."""
        self.run(f"TRUNCATE {TABLES}")
        self.run("CHECKPOINT")

    def saved(self) -> list[tuple[str, bytes]]:
        """Save the streams, so that each round can drain them again."""
        return [
            (key, self.client.dump(key) or b"")
            for key in map(self.keys.outbox, range(self.keys.buckets))
            if self.client.exists(key)
        ]

    def restore(self, saved: list[tuple[str, bytes]]) -> None:
        """Restore the saved streams."""
        for key, value in saved:
            self.client.restore(key, 0, value, replace=True)

    def drain(self, workers: int, threads: int) -> float:
        """Drain everything with started worker processes of so many threads; return how long (s) it takes."""
        context = multiprocessing.get_context("spawn")
        buckets, barrier = context.Queue(), context.Barrier(workers + 1)
        for bucket in (*range(self.keys.buckets), *[None] * workers * threads):
            buckets.put(bucket)
        processes = [
            context.Process(target=work, args=(self.settings, threads, buckets, barrier), daemon=True)
            for _ in range(workers)
        ]
        for process in processes:
            process.start()
        barrier.wait(60)
        took_s = timed(lambda: barrier.wait(600))
        for process in processes:
            process.join()
        return took_s

    def copied_out(self) -> bytes:
        """Return the log as COPY reads it."""
        rows = io.BytesIO()
        with self.connection.cursor() as cursor:
            cursor.copy_expert(f"COPY (SELECT {', '.join(COLUMNS)} FROM sync_events) TO STDOUT", rows)
        return rows.getvalue()

    def copy(self, rows: bytes) -> None:
        """Put all rows into the log at once."""
        with self.connection.cursor() as cursor:
            cursor.copy_expert(f"COPY sync_events ({', '.join(COLUMNS)}) FROM STDIN", io.BytesIO(rows))

    def insert_singly(self, rows: bytes) -> None:
        """Insert rows, one in each transaction."""
        query = f"INSERT INTO sync_events ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
        for line in rows.decode().splitlines()[:SINGLES]:
            texts = [None if text == r"\N" else text.replace("\\\\", "\\") for text in line.split("\t")]
            self.run(query, *texts)


def compare(bench: Bench, saved: list[tuple[str, bytes]], events: int) -> tuple[dict[str, float], int]:
    """Run each method once; return the time (s) of each for so many events, and the bytes of a row."""
    took_s = {}
    for workers, threads in WORKERS:
        bench.empty()
        bench.restore(saved)
        took_s[f"drain, {workers} × {threads}"] = bench.drain(workers, threads)
        assert bench.run("SELECT count(*) FROM sync_events") == [(events,)]
    rows = bench.copied_out()
    bench.empty()
    took_s["COPY"] = timed(lambda: bench.copy(rows))
    bench.empty()
    took_s["one row a transaction"] = timed(lambda: bench.insert_singly(rows)) / SINGLES * events
    return took_s, len(rows) // events


def profile(bench: Bench, saved: list[tuple[str, bytes]]) -> None:
    """Print a profile of one thread."""
    bench.empty()
    bench.restore(saved)
    outbox = Outbox(connect(bench.settings, decode=False), bench.keys)
    drain = Drain(outbox, AuditLog(Database(bench.settings.database_url)), batch=bench.settings.audit_batch)
    stats = cProfile.Profile()
    stats.runcall(lambda: [drain.run(bucket) for bucket in outbox.buckets])
    pstats.Stats(stats).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Measure, and print."""
    events = int(next((word for word in sys.argv[1:] if word.isdigit()), "50000"))
    with Servers(Path(tempfile.mkdtemp(prefix="syncapp-bench-"))) as servers:
        upgrade(servers.database_url)
        settings = Settings(redis_url=servers.redis_url, database_url=servers.database_url, audit_backlog_limit=0)
        commit(settings, events)
        bench = Bench(settings)
        with closing(bench.connection):
            saved = bench.saved()
            runs = [compare(bench, saved, events) for _ in range(ROUNDS)]
            best = {name: min(took_s[name] for took_s, _ in runs) for name in runs[0][0]}
            print(f"{events} events, {runs[0][1]} bytes a row, worker processes × threads, best of {ROUNDS}")
            for name, took_s in best.items():
                copy, singly = best["COPY"] / took_s, best["one row a transaction"] / took_s
                print(f"{name:22} {events / took_s:8,.0f} rows/s, {copy:.2f} × COPY, {singly:6.1f} × single rows")
            if "--profile" in sys.argv:
                profile(bench, saved)


if __name__ == "__main__":
    main()
