"""Two web processes that take turns on the same sessions, are killed and restart."""

from __future__ import annotations

import http.client
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import orjson
import psycopg2

from bench.rig import Rig
from syncapp.dev.ports import free_port
from syncapp.dev.runner import NO_LIMITS, Web, app_env

SESSIONS = 20
TURNS = 60


@dataclass(frozen=True, slots=True)
class Relay:
    """The outcome: faults is empty if nothing was lost, duplicated or different."""

    acknowledged: int
    kills: int
    rows: int
    faults: tuple[str, ...]


def run(rig: Rig) -> Relay:
    """Switch sessions in turns through two processes; one of them is killed after each third of the way."""
    sessions = [rig.session() for _ in range(SESSIONS)]
    acknowledged = dict.fromkeys(sessions, 0)
    kills = 0
    with ExitStack() as stack:
        stack.enter_context(rig.worker())
        webs = [_web(rig) for _ in range(2)]
        for web in webs:
            web.start()
            stack.callback(web.stop)
        for turn in range(TURNS):
            here = webs[turn % 2]
            if turn in (TURNS // 3, 2 * TURNS // 3):
                kills += 1
                here.kill()
                here = webs[(turn + 1) % 2]  # the other continues alone in its place
            for session_id in sessions:
                status, _ = _ask(here, "POST", f"/v1/sessions/{session_id}/switch")
                acknowledged[session_id] += status == 200
            if not webs[turn % 2].alive:
                webs[turn % 2].start()
        faults = differences(webs, acknowledged)
        commits = sum(acknowledged.values()) + 2 * SESSIONS
        rows = _rows(rig, sessions, commits)
    if rows != commits:
        faults.append(f"{rows} rows in PostgreSQL for {commits} commits")
    return Relay(sum(acknowledged.values()), kills, rows, tuple(faults))


def differences(webs: Sequence[Web], acknowledged: Mapping[str, int]) -> list[str]:
    """Return where two processes differ from each other, or from what was acknowledged."""
    found: list[str] = []
    for session_id, count in acknowledged.items():
        answers = [_ask(web, "GET", f"/v1/sessions/{session_id}")[1]["data"] for web in webs]
        shown = [{**answer, "server_time_ms": None, "clock": None} for answer in answers]
        if shown[0] != shown[1]:
            found.append(f"{session_id}: the two processes show different states")
        if (shown[0]["cycle_count"], shown[0]["version"]) != (count, count + 2):
            found.append(f"{session_id}: {count} acknowledged, {shown[0]['cycle_count']} happened")
    return found


def _web(rig: Rig) -> Web:
    own = {"HOST": "127.0.0.1", "PORT": str(free_port()), "WEB_CONCURRENCY": "1"}
    env = app_env(os.environ, rig.servers, **NO_LIMITS, **own)
    handle, log = tempfile.mkstemp(prefix="relay-", suffix=".log", dir=rig.directory)
    os.close(handle)
    return Web(env | {"TMPDIR": str(rig.directory)}, directory=rig.directory, output=Path(log))


def _ask(web: Web, method: str, path: str) -> tuple[int, dict[str, dict[str, object]]]:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=10)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, orjson.loads(answer.read())


def _rows(rig: Rig, sessions: list[str], wanted: int) -> int:
    """Wait, for a limited time, until as many events are stored as were committed; return how many are."""
    end_s = time.monotonic() + 20
    with closing(psycopg2.connect(rig.servers.database_url)) as database, database.cursor() as cursor:
        while True:
            cursor.execute("SELECT count(*) FROM sync_events WHERE session_id = ANY(%s::uuid[])", (sessions,))
            found = int((cursor.fetchone() or (0,))[0])
            database.rollback()
            if found >= wanted or time.monotonic() > end_s:
                return found
            time.sleep(0.2)
