"""The check whether PostgreSQL is fit for use."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import psycopg2
import pytest

from syncapp.dev.ports import free_port
from syncapp.postgres.check import check
from syncapp.postgres.failures import failure_of
from syncapp.postgres.native_probe import NativeProbe
from syncapp.postgres.schema import upgrade
from tests.support.captured_logs import capture_own_logs
from tests.support.paths import ROOT
from tests.support.postgres_roles import database_name, maintenance_url, role_name, run_sql


def sentence(url: str) -> str | None:
    """Return the current answer of `check`, which keeps an answer for a second."""
    time.sleep(1.1)
    found = check(url, 10)
    return found.sentence if found else None


def test_check_tells_what_is_wrong(empty_url: str, database_url: str) -> None:
    assert check(database_url) is None
    assert sentence(empty_url) == "is not migrated: run flask db upgrade"
    upgrade(empty_url)
    run_sql(empty_url, "DELETE FROM _yoyo_migration WHERE migration_id = '002_add_indexes'")
    assert sentence(empty_url) == "lacks 002_add_indexes: run flask db upgrade"
    more = "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES (%s, %s)"
    run_sql(empty_url, more, "2", "002_add_indexes")
    run_sql(empty_url, more, "9", "900_later")
    assert sentence(empty_url) == "has a newer schema than this release"
    assert sentence(f"postgresql://127.0.0.1:{free_port()}/none") == "cannot be reached"


def test_check_tells_of_rights_limits_and_logins_in_words_that_name_nobody(empty_url: str, guest: str) -> None:
    role, name = role_name(guest), database_name(empty_url)
    said = [sentence(guest)]
    assert said == ["does not grant the required rights"]
    run_sql(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    said.append(sentence(guest))
    assert "INSERT on sync_events" in (said[-1] or "")
    run_sql(empty_url, f"GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    assert sentence(guest) is None
    for change, back, expected in (
        (f"ALTER ROLE {role} CONNECTION LIMIT 0", f"ALTER ROLE {role} CONNECTION LIMIT -1", "has no connection left"),
        (f"ALTER ROLE {role} NOLOGIN", f"ALTER ROLE {role} LOGIN", "refuses the login"),
        (
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
            f"ALTER DATABASE {name} RESET default_transaction_read_only",
            "is read-only",
        ),
        (
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS off",
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS on",
            "refuses the login",
        ),
    ):
        run_sql(maintenance_url(empty_url), change)
        said.append(sentence(guest))
        run_sql(maintenance_url(empty_url), back)
        assert said[-1] == expected
        assert sentence(guest) is None
    text = " ".join(each or "" for each in said)
    assert not re.search(rf"{role}|{name}|127\.0\.0\.1|port|FATAL|pass", text)


def test_a_trouble_is_logged_once_with_the_drivers_whole_text() -> None:
    port = free_port()
    with capture_own_logs() as logs:
        for _ in range(3):
            assert sentence(f"postgresql://127.0.0.1:{port}/none") == "cannot be reached"
    (line,) = [line for line in logs if line["event"] == "postgresql_trouble"]
    assert (line["category"], str(port) in line["error"]) == ("unreachable", True)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ('connection to server at "10.0.0.1", port 5432 failed: FATAL:  too many connections for role "x"', "too_many"),
        ("FATAL:  sorry, too many clients already", "too_many"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "too_many"),
        ("FATAL:  remaining connection slots are reserved for non-replication superuser connections", "too_many"),
        ("FATAL:  no more connections allowed (max_client_conn)", "too_many"),
        ("FATAL:  the database system is starting up", "starting_up"),
        ("FATAL:  the database system is not yet accepting connections", "starting_up"),
        ("FATAL:  the database system is shutting down", "shutting_down"),
        ('FATAL:  password authentication failed for user "x"', "refuses_login"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption', "refuses_login"),
        ("server closed the connection unexpectedly", "unreachable"),
        ('could not translate host name "example" to address', "unreachable"),
        ("FATAL:  server login has been failing, cached error: connect failed (server_login_retry)", "unreachable"),
    ],
)
def test_a_refused_connection_is_known_by_what_it_says(text: str, category: str) -> None:
    found = failure_of(psycopg2.OperationalError(text))
    assert found is not None
    assert found.category.startswith(category)


def test_check_asks_once_for_all_who_come_and_waits_no_longer_than_told() -> None:
    asked: list[float] = []
    answered = threading.Event()

    def slow() -> str:
        asked.append(time.monotonic())
        answered.wait(60)
        return "is ill"

    probe = NativeProbe(slow, keep_s=0.2)
    began = time.monotonic()

    def answer(_: int) -> str:
        try:
            return probe.answer(0.3)
        except FutureTimeoutError:
            return "late"

    with ThreadPoolExecutor(8) as threads:
        reasons = list(threads.map(answer, range(8)))
    assert set(reasons) == {"late"}
    assert time.monotonic() - began < 8  # the answer comes after 10 s
    assert len(asked) == 1
    answered.set()
    assert probe.answer(5) == "is ill"
    time.sleep(0.25)
    assert probe.answer(5) == "is ill"
    assert len(asked) == 2


def test_check_never_holds_up_other_greenlets() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts connections and never answers
    url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from syncapp.postgres.check import check
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
ticker = gevent.spawn(tick)
began = time.monotonic()
answers = [gevent.spawn(check, {url!r}, 0.5) for _ in range(20)]
gevent.joinall(answers)
print({{str(answer.value) for answer in answers}}, ticks, time.monotonic() - began, sep="|")
"""
    with silent:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    reasons, ticks, took = done.stdout.splitlines()[-1].split("|")  # after what is logged
    assert reasons == "{'does not answer in time'}"
    assert int(ticks) > 5
    assert float(took) < 8  # one after the other, they would take 10 s
