"""How PostgreSQL executes each statement of the history, over millions of rows: `python -m bench.explain`.

Fills a private PostgreSQL with sessions of a hundred events each, over six months and their partitions, and one
session of twenty thousand. Prints, for each statement, the time, what was scanned by which index, and how many
partitions were skipped; with `--plans` also the plans.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2

from syncapp.dev.processes import end_leftovers
from syncapp.dev.servers import Postgres
from syncapp.history import sql
from syncapp.postgres.database import Cursor
from syncapp.postgres.schema import upgrade

MONTHS = 6
EVENTS = 100
LONG = 20_000
OPTIONS = (
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=256MB",
    "maintenance_work_mem=256MB",
    "max_wal_size=8GB",
)
_PATCH = (
    '{"version":%1$s,"updated_ms":%4$s,"cycle_count":%1$s,'
    '"cycle_started_ms":%4$s,"active_participant_id":"black","participants":{"white":'
    '{"time_used_ms":%2$s,"time_remaining_ms":264800,"cycle_count":3,"is_active":false,"has_expired":false},"black":'
    '{"time_used_ms":41200,"time_remaining_ms":264800,"cycle_count":3,"is_active":true,"has_expired":false}}}'
)
_MESSAGE = (
    '{"session_id":"%3$s","epoch":%4$s,"version":%1$s,"sync_mode":"per_participant","status":"running",'
    '"cycle_count":%1$s,"elapsed_ms":%2$s,"actor":"client","request_id":"%5$s","previous":"%5$s01234567","event":'
    '{"type":"cycle_switched","at_ms":%4$s,"participant_id":"white","next_participant_id":"black","remaining_ms":264800},'
    '"patch":' + _PATCH + "}"
)
_RECORD = (
    '{"epoch":"%4$s","version":"%1$s","status":"running","participants":"'
    + "x" * 68
    + '","metadata":"{}","definition":'
    '"{\\"participant_ids\\": [\\"white\\", \\"black\\"], \\"budgets_ms\\": [300000, 300000], \\"action_on_timeout\\":'
    ' {\\"type\\": \\"end_session\\"}}","created_ms":"%4$s","updated_ms":"%4$s","sync_mode":"per_participant"}'
)
# s: number of the session, v: version, epoch in ms.
_FILL = """
INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count, participant_id,
    next_participant_id, remaining_ms, elapsed_ms, actor, request_id, patch, snapshot, record, message, previous_hash,
    content_hash)
SELECT id, epoch, v,
    CASE WHEN v = 1 THEN 'session_created' WHEN v = 2 THEN 'session_started'
        WHEN v = %(events)s THEN 'session_completed' WHEN v %% 10 = 5 THEN 'session_paused'
        WHEN v %% 10 = 6 THEN 'session_resumed' ELSE 'cycle_switched' END,
    to_timestamp(epoch / 1000 + v * 3), 'per_participant',
    (CASE v WHEN 1 THEN 'pending' WHEN %(events)s THEN 'completed' ELSE 'running' END)::sync_status, v,
    'white', 'black', 264800, 100 + v * 7, 'client', request,
    format(%(patch)s, v, 100 + v * 7, id, epoch)::jsonb,
    CASE WHEN whole THEN format(%(record)s, v, 0, id, epoch, request)::jsonb END,
    CASE WHEN whole THEN format(%(record)s, v, 0, id, epoch, request)::jsonb END,
    format(%(message)s, v, 100 + v * 7, id, epoch, request)::json, decode(request || '01234567', 'hex'),
    sha256(format('%%s-%%s', s, v)::bytea)
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS s
CROSS JOIN LATERAL (SELECT md5('session ' || s)::uuid AS id, %(from)s + (s - %(first)s) * %(step)s AS epoch) AS session
CROSS JOIN LATERAL generate_series(1, %(events)s) AS v
CROSS JOIN LATERAL (SELECT md5(s || ' ' || v) AS request, v = 1 OR v %% 100 = 0 OR v = %(events)s AS whole) AS more
"""
_SESSIONS = """
INSERT INTO sync_sessions (session_id, epoch, version, sync_mode, status, cycle_count, updated_at, content_hash,
    participant_count, total_time_ms, created_at, started_at, metadata, metadata_version)
SELECT session_id, epoch, max(version), 'per_participant',
    (CASE WHEN random() < 0.02 THEN 'running' ELSE 'completed' END)::sync_status, count(*), max(at),
    '\\x00', 2, 600000, min(at), min(at), '{}', 1
FROM sync_events GROUP BY session_id, epoch
"""


@contextlib.contextmanager
def server() -> Iterator[Cursor]:
    """Yield a cursor of a private, migrated PostgreSQL; each statement is a transaction of its own."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-explain-"))
    postgres = Postgres(directory, directory / "postgres", options=OPTIONS)
    try:
        postgres.start()
        upgrade(postgres.url)
        with contextlib.closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            yield cursor
    finally:
        postgres.stop()
        end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)


def months(cursor: Cursor) -> list[tuple[int, int]]:
    """Create the partitions of past months; return from and to (ms) of the last `MONTHS`, including the present one."""
    cursor.execute(
        "SELECT month, extract(epoch FROM month)::bigint * 1000,"
        " extract(epoch FROM month + interval '1 month')::bigint * 1000"
        " FROM generate_series(date_trunc('month', now()) - %s * interval '1 month', now(), interval '1 month')"
        " AS month",
        [MONTHS - 1],
    )
    found = []
    for month, low, high in cursor.fetchall():
        found.append((low, high))
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS sync_events_{month:%Y_%m} PARTITION OF sync_events"
            f" FOR VALUES FROM ({low}) TO ({high})"
        )
    return found


def fill(cursor: Cursor, rows: int) -> tuple[str, int]:
    """Fill the tables; return the id and the epoch of the long session."""
    a_month = rows // EVENTS // MONTHS
    values = {"patch": _PATCH, "record": _RECORD, "message": _MESSAGE}
    spans = months(cursor)
    for number, (low, high) in enumerate(spans):
        first = number * a_month + 1
        span = {"first": first, "last": first + a_month - 1, "from": low, "step": (high - low) // a_month}
        cursor.execute(_FILL, values | span | {"events": EVENTS})
        print(f"month {number + 1} of {MONTHS}", flush=True)
    low = spans[2][0] + 7
    cursor.execute(_FILL, values | {"first": 10**9, "last": 10**9, "from": low, "step": 0, "events": LONG})
    cursor.execute(_SESSIONS)
    for table in ("sync_events", "sync_sessions"):
        cursor.execute(f"VACUUM ANALYZE {table}")
    cursor.execute("SELECT md5('session 1000000000')::uuid::text")
    ((session_id,),) = cursor.fetchall()
    return session_id, low


def questions(cursor: Cursor, long_id: str, long_epoch: int) -> dict[str, tuple[str, Any]]:
    """Return statements and their values, by the query they serve."""
    cursor.execute(
        "SELECT session_id::text, epoch, updated_at FROM sync_sessions ORDER BY epoch"
        " OFFSET (SELECT count(*) * 2 / 5 FROM sync_sessions) LIMIT 1"
    )
    ((short_id, epoch, at),) = cursor.fetchall()
    columns = ", ".join(sql.EXPRESSIONS.get(name, name) for name in sql.EVENT_COLUMNS)
    page = {"session_id": short_id, "epoch": 0, "version": 0, "limit": 101, "types": ["session_paused"], "since": at}
    deep = page | {"session_id": long_id, "epoch": long_epoch, "version": LONG // 2}

    def events(filters: str = "") -> str:
        return sql.EVENTS.format(columns=columns, filters=filters)

    def sessions(filters: str = "") -> str:
        return sql.SESSIONS.format(filters=filters and f" WHERE {filters}")

    statuses = ["running", "paused"]
    listing = {"status": "running", "statuses": statuses, "mode": "global", "from": at, "id": short_id, "limit": 101}
    version = LONG // 2 + 50
    return {
        "events: first page": (events(), page),
        "events: a page in the middle of 20,000": (events(), deep),
        "events: newest first, from the middle of 20,000": (
            sql.EVENTS_BACKWARDS.format(columns=columns, filters=""),
            deep,
        ),
        "events: by type": (events(" AND event_type = ANY(%(types)s)"), deep),
        "events: by time, of 20,000": (events(" AND at >= %(since)s"), deep | {"epoch": 0, "version": 0}),
        "events: is there any": (sql.EXISTS, [short_id]),
        "at: snapshot before an instant": (sql.SNAPSHOT_AT, [short_id, 2**63 - 1, at]),
        "at: the same, of 20,000": (sql.SNAPSHOT_AT, [long_id, 2**63 - 1, at]),
        "at: snapshot before a version": (sql.SNAPSHOT_OF, [long_id, long_epoch, version]),
        "at: commits after it": (sql.COMMITS, [long_id, long_epoch, version - 50, version, "infinity"]),
        "at: newest version": (sql.NEWEST, [short_id]),
        "at: newest version of an epoch": (sql.NEWEST_OF_EPOCH, [short_id, epoch]),
        "history: last changed": (sessions(), listing),
        "history: the next page": (sessions("(updated_at, session_id) < (%(from)s, %(id)s::uuid)"), listing),
        "history: by status": (sessions("status = %(status)s"), listing),
        "history: by statuses": (sessions("status = ANY(%(statuses)s::sync_status[])"), listing),
        "history: by mode": (sessions("sync_mode = %(mode)s"), listing),
        "history: created in a day": (
            sessions("created_at >= %(from)s AND updated_at >= %(from)s AND created_at < %(from)s + interval '1 day'"),
            listing,
        ),
        "history: changed in a day": (
            sessions("updated_at >= %(from)s AND updated_at < %(from)s + interval '1 day'"),
            listing,
        ),
        "statistics: newest life": (sql.LIFE, [long_id]),
        "statistics: cycles of 100 events": (sql.CYCLES, [short_id, epoch]),
        "statistics: cycles of 20,000 events": (sql.CYCLES, [long_id, long_epoch]),
        "statistics: roster": (sql.ROSTER, [long_id, long_epoch]),
        "recovery: newest message": (sql.LAST, [short_id]),
        "recovery: forks": (sql.FORKS, None),
        "recovery: live sessions": (sql.RECENT_IDS, ["infinity"]),
    }


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each node of a plan that reads a table."""
    if "Relation Name" in node or "Index Name" in node:
        yield node
    for inner in node.get("Plans", ()):
        yield from scans(inner)


def told(plan: dict[str, Any], partitions: int) -> tuple[str, str]:
    """Describe how many partitions of the log a plan scans, and by which indexes."""
    found = list(scans(plan))
    events = {node["Relation Name"] for node in found if node.get("Relation Name", "").startswith("sync_events")}
    kinds = dict.fromkeys(
        f"{node['Node Type']} by {kind_of(node['Index Name'])}" if "Index Name" in node else node["Node Type"]
        for node in found
    )
    return f"{len(events)} of {partitions}" if events else "-", ", ".join(kinds)


def kind_of(index: str) -> str:
    """Return an index's name without that of its partition."""
    if index.startswith("sync_events_"):
        return (
            "primary key"
            if index.endswith("_pkey")
            else "snapshots"
            if "at_idx" in index and "epoch" in index
            else "time"
        )
    return index.removeprefix("sync_sessions_").replace("pkey", "primary key")


def main() -> None:
    """Fill, explain, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of sync_events")
    parser.add_argument("--plans", action="store_true", help="print the plans, too")
    asked = parser.parse_args()
    os.nice(10)
    with server() as cursor:
        began_s = time.monotonic()
        long_id, long_epoch = fill(cursor, asked.rows)
        cursor.execute("SELECT count(*), pg_size_pretty(pg_total_relation_size('sync_sessions')) FROM sync_events")
        ((rows, _),) = cursor.fetchall()
        cursor.execute(
            "SELECT count(*), pg_size_pretty(sum(pg_total_relation_size(inhrelid))) FROM pg_inherits"
            " WHERE inhparent = 'sync_events'::regclass"
        )
        ((partitions, size),) = cursor.fetchall()
        print(f"{rows:,} rows in {partitions} partitions, {size}, filled in {time.monotonic() - began_s:.0f} s\n")
        print("| query | ms | planned in | partitions | scans |\n| --- | --- | --- | --- | --- |")
        for name, (statement, values) in questions(cursor, long_id, long_epoch).items():
            best = None
            for _ in range(3):  # the first one warms the cache
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
                (((plan,),),) = cursor.fetchall()
                if best is None or plan["Execution Time"] < best["Execution Time"]:
                    best = plan
            assert best
            where, how = told(best["Plan"], partitions)
            print(
                f"| {name} | {best['Execution Time']:.2f} | {best['Planning Time']:.2f} | {where} | {how} |", flush=True
            )
            if asked.plans:
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", values)
                print("\n".join(line for (line,) in cursor.fetchall()), "\n")


if __name__ == "__main__":
    main()
