"""Processes with the documented rights in Redis and PostgreSQL, and no others, do everything."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
import requests
from websockets.sync.client import connect

from syncapp.domain.link_ids import new_link_id
from syncapp.postgres.schema import upgrade
from syncapp.store.client import connect as connect_store
from syncapp.store.keys import Keyspace
from syncapp.store.links import Link, LinkStore
from tests.support.cluster import Cluster, MakeCluster
from tests.support.postgres_roles import maintenance_url, run_sql
from tests.support.store import make_settings
from tests.support.web_clients import CHESS, RestClient, metric_value, wait_until

DOCS = Path(__file__).parents[2] / "docs"


def acl() -> list[str]:
    """Words of the documented ACL SETUSER after the user's name."""
    text = (DOCS / "keys.md").read_text()
    return text.split("ACL SETUSER syncapp ", 1)[1].split("```", 1)[0].replace("PASSWORD", "secret").split()


def statements() -> tuple[str, str]:
    """SQL of docs/deployment.md: for a superuser, and for the owner of the tables."""
    section = (DOCS / "deployment.md").read_text().split("\n## PostgreSQL\n")[1].split("\n## ")[0]
    first, second = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return first, second


class Roles:
    """Roles and a database of this test's own, made by the documented SQL."""

    def __init__(self, url: str) -> None:
        self.server = maintenance_url(url)
        self.name = f"syncapp_{secrets.token_hex(4)}"
        for statement in self._own(statements()[0]).split(";\n"):
            if statement.strip():
                self._superuser(statement)
        address = self.server.split("@")[-1].rsplit("/", 1)[0]
        self.owner = f"postgresql://{self.name}_owner:OWNER_PASSWORD@{address}/{self.name}"
        self.runner = f"postgresql://{self.name}:PASSWORD@{address}/{self.name}"
        upgrade(self.owner)
        run_sql(self.owner, self._own(statements()[1]))

    def _own(self, sql: str) -> str:
        return re.sub(r"\bsyncapp(?=_owner\b|\b)", self.name, sql)

    def _superuser(self, statement: str) -> None:
        with closing(psycopg2.connect(self.server)) as connection, connection.cursor() as cursor:
            connection.autocommit = True  # CREATE DATABASE takes no transaction
            cursor.execute(statement)

    def drop(self) -> None:
        self._superuser(f"DROP DATABASE {self.name} WITH (FORCE)")
        self._superuser(f"DROP ROLE {self.name}")
        self._superuser(f"DROP ROLE {self.name}_owner")


@pytest.fixture(scope="module")
def roles(database_url: str) -> Iterator[Roles]:
    made = Roles(database_url)
    yield made
    made.drop()


@pytest.fixture(scope="module")
def restricted(make_cluster: MakeCluster, redis_url: str, roles: Roles) -> Iterator[Cluster]:
    """A web process and a worker with these rights."""
    with redis_py.Redis.from_url(redis_url) as client:
        client.flushdb()
        command: Any = client.execute_command
        command("ACL", "SETUSER", "syncapp", *acl())
        command("ACL", "LOG", "RESET")
        cluster = make_cluster(
            web=1,
            REDIS_URL=redis_url.replace("//", "//syncapp:secret@", 1),
            DATABASE_URL=roles.runner,
            RECOVER_ON_MISS="true",
        )
        yield cluster
        for process in cluster.processes:
            process.stop()
        client.acl_deluser("syncapp")


def flask(cluster: Cluster, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "flask", "--app", "wsgi", *arguments],
        env={**cluster.web[0].env, **env},
        cwd=DOCS.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_operation_works_with_the_documented_rights(restricted: Cluster, redis_url: str, roles: Roles) -> None:
    (url,) = restricted.urls
    api = RestClient(url)
    session_id = api.running(warn_at_ms=[1000])
    path = f"{url}/v1/sessions/{session_id}"
    with connect(f"ws{url[4:]}/ws?sessionId={session_id}") as socket:
        wait_until(lambda: "STATE_SYNC" in str(socket.recv(timeout=30)))  # what comes later is told by events
        for command in ("switch", "pause", "resume"):
            api.command(session_id, command)
        api.command(session_id, "adjust", op="add", ms=1000)
        wait_until(lambda: "time_adjusted" in str(socket.recv(timeout=30)))
    assert requests.patch(path, json={"metadata": {"a": 1}}, timeout=60).status_code == 200
    batch = {"command": "pause", "session_ids": [session_id], "args": {}}
    assert requests.post(f"{url}/v1/sessions/batch", json=batch, timeout=60).status_code == 200
    assert requests.post(
        f"{url}/v1/sessions",
        json=CHESS,
        headers={"Idempotency-Key": str(uuid.uuid4())},
        timeout=60,
    ).ok
    for query in ("", "/text?format=mm:ss", "?wait_ms=100"):
        assert requests.get(f"{path}{query}", timeout=60).ok
    assert requests.get(f"{url}/v1/sessions?status=paused", timeout=60).ok
    ended, gone = api.running(), api.create()
    assert requests.post(f"{url}/v1/sessions/{ended}/cancel", json={}, timeout=60).ok
    api.delete(gone)
    wait_until(lambda: metric_value(url, 'syncapp_audit_queue{state="waiting"}') == 0)
    wait_until(lambda: requests.get(f"{path}/events", timeout=60).json()["data"]["events"][-1]["version"] >= 7)
    for query in ("at?version=2", "statistics", "export?format=csv"):
        assert requests.get(f"{path}/{query}", timeout=60).ok
    assert requests.get(f"{url}/v1/history", timeout=60).ok
    assert requests.get(f"{url}/v1/audit/queue", timeout=60).ok
    with redis_py.Redis.from_url(redis_url) as client:
        (key,) = client.keys(f"sync:*:session:{session_id}")
        client.delete(key)
    assert requests.get(path, timeout=60).json()["data"]["status"] == "paused"  # from the log
    ready = requests.get(f"{url}/ready", timeout=60).json()
    assert (ready["redis"], ready["postgresql"]) == ("ok", "ok")
    for words in (
        "audit status",
        "audit drain",
        "audit redrive",
        "audit verify",
        "sessions list",
        "sessions recover --all",
    ):
        done = flask(restricted, *words.split())
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert flask(restricted, "db", "upgrade").returncode == 0  # nothing is missing
    assert flask(restricted, "audit", "retention", "--months", "13", DATABASE_URL=roles.owner).returncode == 0


def test_links_work_with_the_documented_rights(restricted: Cluster, redis_url: str) -> None:
    links = LinkStore(connect_store(make_settings(redis_url.replace("//", "//syncapp:secret@", 1))), Keyspace())
    session_id, now_s = str(uuid.uuid4()), int(time.time())
    link = Link(new_link_id(1), "session:watch", now_s, now_s + 60, "ada")
    links.add(session_id, Link(new_link_id(1), "session:watch", now_s, now_s - 1, "ada"))  # expired: it is removed
    links.add(session_id, link)
    assert links.links_of(session_id, 1) == [link]
    links.revoke(session_id, [link])
    assert links.revoked_from("")[-1].jti == link.jti


def test_nothing_was_denied_in_redis_but_the_optional_right(restricted: Cluster, redis_url: str) -> None:
    with redis_py.Redis.from_url(redis_url) as client:
        command: Any = client.execute_command
        denied = {_what(entry) for entry in command("ACL", "LOG")}
        used = {name.split("_", 1)[1] for name in client.info("commandstats")}
    assert denied <= {"config|get"}, denied
    print("allowed but not used:", sorted(word[1:] for word in acl() if word.startswith("+") and word[1:] not in used))


def test_the_running_role_cannot_change_the_schema_or_the_log(roles: Roles) -> None:
    for statement in (
        "DELETE FROM sync_events",
        "UPDATE sync_events SET event_type = 'x'",
        "TRUNCATE sync_sessions",
        "DELETE FROM sync_dead_letters",
        "CREATE TABLE sync_other (a int)",
        "DROP TABLE sync_events_default",
        "INSERT INTO _yoyo_migration (migration_hash) VALUES ('a')",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            run_sql(roles.runner, statement)


def _what(entry: Any) -> str:
    """The command, key or channel that an entry of ACL LOG is about."""
    pairs = entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
    found = pairs.get(b"object") or pairs.get("object") or b""
    return found.decode() if isinstance(found, bytes) else str(found)
