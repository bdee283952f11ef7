"""How fast a backlog drains into PostgreSQL, beside a bare COPY of the same rows and inserts of one row each.

    python -m bench.drain [events] [--profile]

Private servers with their default durability (fsync on). The events are real: commits of sessions of two, made by the
store. Each way runs `ROUNDS` times, in turns, because other things run on a machine, too; the best of each counts.
"""

from __future__ import annotations

import cProfile
import io
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

from syncapp.audit import AuditLog
from syncapp.commands import NO_CLAIM
from syncapp.config import Settings
from syncapp.db import Database, upgrade
from syncapp.drains import Drain
from syncapp.events import COLUMNS
from syncapp.keys import Keyspace
from syncapp.models import CreateSession
from syncapp.outbox import Outbox
from syncapp.redis import connect
from syncapp.servers import Servers
from syncapp.sessions import SessionStore
from syncapp.tally import Tally

ROUNDS = 3
SWITCHES = 98
SINGLES = 1000
TABLES = "sync_events, sync_sessions, sync_participants, sync_dead_letters"


def commit(settings: Settings, events: int) -> None:
    """Leave so many events in the outboxes: of sessions of two, that are switched 98 times each, in turns."""
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


class Bench:
    """The stores, and the ways of filling PostgreSQL."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self.settings = settings
        self.threads = threads
        self.client = redis_py.Redis.from_url(settings.redis_url)
        self.keys = Keyspace(settings.sync_buckets)
        self.connection = psycopg2.connect(settings.database_url)
        self.connection.autocommit = True
        self.run("SET syncapp.allow_changes = 'on'")

    def run(self, query: str, *arguments: Any) -> list[Any]:
        """Run a statement, in a transaction of its own."""
        with self.connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Empty the log."""
        self.run(f"TRUNCATE {TABLES}")
        self.run("CHECKPOINT")

    def saved(self) -> list[tuple[str, bytes]]:
        """Take the streams as they are, to be drained again in each round."""
        return [
            (key, self.client.dump(key) or b"")
            for key in map(self.keys.outbox, range(self.keys.buckets))
            if self.client.exists(key)
        ]

    def restore(self, saved: list[tuple[str, bytes]]) -> None:
        """Put the streams back."""
        for key, value in saved:
            self.client.restore(key, 0, value, replace=True)

    def drain(self) -> None:
        """Drain as a worker does: its threads take the buckets in turns."""
        client, database = connect(self.settings, decode=False), Database(self.settings.database_url)
        outbox = Outbox(client, self.keys)
        drain = Drain(outbox, AuditLog(database), batch=self.settings.audit_batch, count=Tally(client, self.keys).add)
        buckets = iter(outbox.buckets)
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    bucket = next(buckets, None)
                if bucket is None:
                    return
                drain.run(bucket)

        threads = [threading.Thread(target=work) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database.close()

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


def main() -> None:
    """Measure, and print."""
    events = int(next((word for word in sys.argv[1:] if word.isdigit()), "50000"))
    directory = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
    with Servers(directory) as servers:
        upgrade(servers.database_url)
        settings = Settings(redis_url=servers.redis_url, database_url=servers.database_url, audit_backlog_limit=0)
        commit(settings, events)
        bench = Bench(settings, settings.worker_threads)
        with closing(bench.connection):
            saved = bench.saved()
            best = {"drain": 9e9, "bare COPY": 9e9, "one by one": 9e9}
            cpu_us = 9e9
            for _ in range(ROUNDS):
                bench.empty()
                bench.restore(saved)
                cpu_s = time.process_time()
                best["drain"] = min(best["drain"], timed(bench.drain))
                cpu_us = min(cpu_us, (time.process_time() - cpu_s) / events * 1e6)
                assert bench.run("SELECT count(*) FROM sync_events") == [(events,)]
                rows = bench.copied_out()
                bench.empty()
                best["bare COPY"] = min(best["bare COPY"], timed(lambda rows=rows: bench.copy(rows)))  # type: ignore[misc]  # a default
                bench.empty()
                single_s = timed(lambda rows=rows: bench.insert_singly(rows))  # type: ignore[misc]  # a default
                best["one by one"] = min(best["one by one"], single_s / SINGLES * events)
            rate = {name: events / took_s for name, took_s in best.items()}
            print(f"{events} events, {len(rows) / events:.0f} bytes a row, {bench.threads} threads, best of {ROUNDS}")
            print(f"a worker's CPU {cpu_us:.1f} us a row")
            for name, rows_per_s in rate.items():
                print(f"{name:10} {rows_per_s:8.0f} rows/s   drain is {rate['drain'] / rows_per_s:.2f} of it")
            if "--profile" in sys.argv:
                bench.empty()
                bench.restore(saved)
                bench.threads = 1
                profile = cProfile.Profile()
                work = Drain(
                    Outbox(connect(settings, decode=False), bench.keys),
                    AuditLog(Database(settings.database_url)),
                    batch=settings.audit_batch,
                )
                profile.runcall(lambda: [work.run(bucket) for bucket in range(settings.sync_buckets)])
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
