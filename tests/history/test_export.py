"""Exports over real HTTP: an interrupted export never looks complete to a client, also behind a proxy."""

from __future__ import annotations

import csv
import io
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import requests

from syncapp.dev.servers import Postgres
from tests.support.cluster import Cluster, MakeCluster
from tests.support.nginx import nginx
from tests.support.types import Db

EVENTS = 5003
CLOSINGS = {"json": b'"count":5003}}\n', "ndjson": b'"count":5003}\n', "csv": b"# 5003 events" + b"," * 19 + b"\r\n"}
LARGE = "Größe " * 500


@pytest.fixture
def log(db: Db) -> Callable[..., str]:
    """Writes a session of `EVENTS` events into the log; the event of version `broken` cannot be exported."""

    def fill(broken: int = 0, reason: str = "Größe") -> str:
        session_id = str(uuid.uuid4())
        with db.cursor() as cursor:
            cursor.execute(
                """INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count,
                    participant_id, actor, patch, message, content_hash)
                SELECT %(id)s, 1767268800000, v, 'time_adjusted', to_timestamp(1767268800 + v), 'global', 'running', 0,
                    '+1@example.org', 'client', CASE WHEN v = %(broken)s THEN 'null' ELSE '{"version": 1}' END::jsonb,
                    json_build_object('event', json_build_object('type', 'time_adjusted', 'at_ms', 1767268800000 + v,
                        'reason', %(reason)s::text)), sha256(v::text::bytea)
                FROM generate_series(1, %(events)s) AS v""",
                {"id": session_id, "broken": broken, "events": EVENTS, "reason": reason},
            )
        return session_id

    return fill


def path_of(session_id: str, form: str) -> str:
    return f"/v1/sessions/{session_id}/export?format={form}"


def fetched(url: str, *options: str) -> tuple[int, bytes]:
    """Return curl's exit status, and the bytes that it received."""
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    found = subprocess.run(["curl", "-sS", "--max-time", "60", *options, url], capture_output=True, check=False)
    return found.returncode, found.stdout


@pytest.mark.parametrize("form", CLOSINGS)
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_an_export_whose_source_fails_is_an_error(
    one_web: Cluster, log: Callable[..., str], form: str, version: str
) -> None:
    status, received = fetched(one_web.urls[0] + path_of(log(broken=3000), form), version)
    assert status != 0
    assert not received.endswith(CLOSINGS[form])


def test_an_export_that_is_cut_off_over_http_1_0_ends_by_a_reset(one_web: Cluster, log: Callable[..., str]) -> None:
    path = path_of(log(broken=3000), "ndjson")
    with asked(one_web.urls[0], path) as connection, pytest.raises(ConnectionResetError):
        to_the_end(connection)


def test_an_export_whose_database_is_killed_ends_by_a_reset(
    make_cluster: MakeCluster, log: Callable[..., str], postgres: Postgres
) -> None:
    base = make_cluster(web=1, worker=False, HISTORY_TIMEOUT_S="1").urls[0]
    with asked(base, path_of(log(reason=LARGE), "ndjson"), receive_bytes=4096) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.0 200 OK")
        postgres.kill()  # more than the buffers on the way can hold
        try:
            with pytest.raises(ConnectionResetError):
                to_the_end(connection)
        finally:
            postgres.start()


def to_the_end(connection: socket.socket) -> None:
    """Read until the server ends the stream."""
    while connection.recv(1 << 16):
        pass


def asked(base: str, path: str, *, receive_bytes: int = 0) -> socket.socket:
    """Ask for a path over HTTP/1.0."""
    address = urlsplit(base)
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(60)
    connection.connect((address.hostname or "", address.port or 0))
    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize(
    "location", ["", "proxy_http_version 1.1;", "proxy_buffering off;"], ids=["1.0", "1.1", "through"]
)
def test_an_export_that_fails_is_an_error_through_nginx(
    one_web: Cluster, log: Callable[..., str], location: str
) -> None:
    with nginx(one_web.urls[0], location=location) as front:
        session_id = log(broken=3000)
        for form, closing in CLOSINGS.items():
            status, received = fetched(front.url + path_of(session_id, form))
            assert status != 0
            assert not received.endswith(closing)
            with pytest.raises(requests.RequestException):
                requests.get(front.url + path_of(session_id, form), timeout=60)


def test_a_whole_export_comes_whole_through_nginx(one_web: Cluster, log: Callable[..., str]) -> None:
    with nginx(one_web.urls[0]) as front:
        session_id = log()
        for form, closing in CLOSINGS.items():
            answer = requests.get(front.url + path_of(session_id, form), timeout=60)
            assert answer.content.endswith(closing)
            assert number_of_events(form, answer.content) == EVENTS


def number_of_events(form: str, content: bytes) -> int:
    """Return how many events a file has, read as docs/audit.md says."""
    if form == "json":
        return len(orjson.loads(content)["data"]["events"])
    if form == "ndjson":
        *events, end = map(orjson.loads, content.splitlines())
        assert end["type"] == "export_end"
        return len(events) if end["count"] == len(events) else -1
    *rows, last = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert last["epoch"] == f"# {len(rows)} events"
    return len(rows)


def test_a_file_for_spreadsheets_has_ids_as_they_are_and_texts_that_are_no_formulas(one_web: Cluster, db: Db) -> None:
    """Ids are exact; a reason loses one leading apostrophe, as docs/audit.md says."""
    ids = ["+491234", "-1-1", "@SUM", "007", "1e5", "00000000000000000001", "2-3", "a@b.example", "c++"]
    reasons = ["=1+1", "+1", "-1", "@A1", "'quoted'", "''", " =1", "\tx", "plain", 'Grüße; „so“, "oder"\nso', "5"]
    session_id, rows = str(uuid.uuid4()), max(len(ids), len(reasons))
    with db.cursor() as cursor:
        for version in range(1, rows + 1):
            event = {"type": "time_adjusted", "at_ms": 1, "reason": reasons[(version - 1) % len(reasons)]}
            cursor.execute(
                """INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count,
                    participant_id, group_id, actor, patch, message, content_hash)
                VALUES (%s, 1, %s, 'time_adjusted', now(), 'global', 'running', 0, %s, %s, 'client', '{}', %s, '')""",
                [session_id, version, ids[version % len(ids)], ids[version % len(ids)],
                 orjson.dumps({"event": event}).decode()],
            )  # fmt: skip
    answer = requests.get(one_web.urls[0] + path_of(session_id, "csv"), timeout=60)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.content.startswith(b"\xef\xbb\xbfepoch,version,")
    assert answer.content.count(b"\r\n") == rows + 2
    table: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert table.pop()["epoch"] == f"# {rows} events"
    for version, row in enumerate(table, start=1):
        assert row["participant_id"] == row["group_id"] == ids[version % len(ids)]
        assert not row["reason"].lstrip(" ").startswith(("=", "+", "-", "@", "\t"))
        assert row["reason"].removeprefix("'") == reasons[(version - 1) % len(reasons)]
        assert orjson.loads(row["event"])["reason"] == reasons[(version - 1) % len(reasons)]
