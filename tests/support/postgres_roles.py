"""Databases and roles of a test's own, on the run's PostgreSQL."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from syncapp.postgres import migrations


def ask(url: str, query: str, *arguments: Any) -> list[Any]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchall() if cursor.description else []


def server_of(url: str) -> str:
    """Where the database is that every server has."""
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", r"\1/postgres", url)


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def role_of(url: str) -> str:
    return url.split("//")[1].split(":", maxsplit=1)[0]


@contextmanager
def scratch(database_url: str, tablespace: str = "pg_default") -> Iterator[str]:
    """Where a database without any table is."""
    name = f"scratch_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TABLESPACE {tablespace}")
        try:
            yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", database_url)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def guest_of(url: str, rights: str = "") -> Iterator[str]:
    """Where a role meets a database that is no superuser, owns nothing, and has these rights on its tables."""
    name = f"guest_{secrets.token_hex(4)}"
    ask(url, f"CREATE ROLE {name} LOGIN PASSWORD 'pass'")
    if rights:
        ask(url, f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {name}")
    try:
        yield re.sub(r"//([^@/]*@)?", f"//{name}:pass@", url, count=1)
    finally:
        ask(url, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", name)
        ask(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


def set_read_only(url: str, *, on: bool) -> None:
    ask(server_of(url), f"ALTER DATABASE {name_of(url)} SET default_transaction_read_only = {on}")


def end_connections(url: str) -> None:
    """End what is connected to a database: what was set for a database or a role counts from the next connection."""
    ask(server_of(url), "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", name_of(url))


def held(url: str, role: str = "") -> int:
    """How many connections of ours a database has, or a role has to it."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'syncapp'"
        " AND (usename = %s OR %s = '')"
    )
    ((count,),) = ask(server_of(url), query, name_of(url), role, role)
    return int(count)


def add_migration(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for path in migrations.MIGRATIONS.glob("*.sql"):
        (directory / path.name).write_text(path.read_text())
    (directory / "900_more.sql").write_text(text)
    monkeypatch.setattr(migrations, "MIGRATIONS", directory)
