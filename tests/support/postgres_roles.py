"""Temporary databases and roles on the run's PostgreSQL."""

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


def run_sql(url: str, query: str, *arguments: Any) -> list[Any]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchall() if cursor.description else []


def maintenance_url(url: str) -> str:
    """Return the URL of the database `postgres`, which every server has."""
    return re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", r"\1/postgres", url)


def database_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def role_name(url: str) -> str:
    return url.split("//")[1].split(":", maxsplit=1)[0]


@contextmanager
def empty_database(database_url: str, tablespace: str = "pg_default") -> Iterator[str]:
    """Create a database without tables; yield its URL."""
    name = f"scratch_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} TABLESPACE {tablespace}")
        try:
            yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", database_url)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def limited_role(url: str, rights: str = "") -> Iterator[str]:
    """Create a role that is not a superuser, owns nothing, and has these rights on the tables; yield its URL."""
    name = f"guest_{secrets.token_hex(4)}"
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'pass'")
    if rights:
        run_sql(url, f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {name}")
    try:
        yield re.sub(r"//([^@/]*@)?", f"//{name}:pass@", url, count=1)
    finally:
        run_sql(url, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", name)
        run_sql(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


def set_read_only(url: str, *, on: bool) -> None:
    run_sql(maintenance_url(url), f"ALTER DATABASE {database_name(url)} SET default_transaction_read_only = {on}")


def end_connections(url: str) -> None:
    """End all connections to a database; new settings of a database or a role apply to new connections only."""
    run_sql(
        maintenance_url(url),
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
        database_name(url),
    )


def connection_count(url: str, role: str = "") -> int:
    """Count SyncApp's connections to a database, or those of one role."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'syncapp'"
        " AND (usename = %s OR %s = '')"
    )
    ((count,),) = run_sql(maintenance_url(url), query, database_name(url), role, role)
    return int(count)


def add_migration(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for path in migrations.MIGRATIONS.glob("*.sql"):
        (directory / path.name).write_text(path.read_text())
    (directory / "900_more.sql").write_text(text)
    monkeypatch.setattr(migrations, "MIGRATIONS", directory)
