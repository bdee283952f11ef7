"""Migrations: reads which are applied, and applies the missing ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg2
from psycopg2 import extensions

from syncapp.errors import one_line

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
IS_FIXED = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
"""Asks whether the server is a standby, and whether it is read-only."""
_UPGRADE_LOCK = 0x53796E63417070  # any number that no other user of the database has
_UPGRADE_LOCK_TIMEOUT_S = 120


class UpgradeFailed(Exception):
    """Migrations that could not be applied; its text is one line."""


def known() -> set[str]:
    """Return the names of this release's migrations."""
    return {path.stem for path in MIGRATIONS.glob("*.sql")}


def applied_to(cursor: extensions.cursor) -> set[str]:
    """Return the names of the migrations that are applied."""
    cursor.execute("SELECT to_regclass('_yoyo_migration') IS NOT NULL")
    if cursor.fetchone() != (True,):
        return set()
    cursor.execute("SELECT migration_id FROM _yoyo_migration")
    return {name for (name,) in cursor.fetchall()}


def apply_missing(database_url: str, connection: extensions.connection) -> list[str]:
    """Apply what is missing, one upgrade at a time; return the names. When nothing is missing, nothing is written.

    Raises `UpgradeFailed` and what psycopg2 raises.
    """
    with connection, connection.cursor() as cursor:
        if not known() - applied_to(cursor):
            return []
    with connection, connection.cursor() as cursor:
        # Held by a transaction on its own connection, so it is released however the process ends.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute(f"SET LOCAL lock_timeout = '{_UPGRADE_LOCK_TIMEOUT_S}s'")
        cursor.execute(IS_FIXED)
        is_standby, is_read_only = cursor.fetchone() or (False, False)
        if not is_read_only:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_UPGRADE_LOCK])
        missing = ", ".join(sorted(known() - applied_to(cursor)))
        if not missing:
            return []
        if is_read_only:
            what = "a standby" if is_standby else "read-only"
            raise UpgradeFailed(f"{missing} must be applied, and the database is {what}")
        try:
            return _apply_migrations(database_url)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise UpgradeFailed(f"{missing} must be applied, and this role may not: {one_line(error)}") from error


def _apply_migrations(database_url: str) -> list[str]:
    """Apply what is missing; the caller holds the lock of upgrades."""
    # Only this command needs them, and they take a while to load.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlBackend
    from yoyo.connections import DatabaseURI
    from yoyo.migrations import default_migration_table

    # libpq reads the URL: it supports sockets, host lists and more that yoyo's own parser does not.
    words = extensions.parse_dsn(database_url)
    uri = DatabaseURI("postgresql", None, None, None, None, words.pop("dbname", None), words)
    applied = []
    with PostgresqlBackend(uri, default_migration_table) as backend:
        backend.init_database()
        # yoyo's own lock is a row, which stays if its holder is killed; while we hold our lock, nobody holds that.
        backend.break_lock()
        for migration in backend.to_apply(read_migrations(str(MIGRATIONS))):
            migration.load()
            # yoyo would record it in another transaction; if killed in between, it would apply the migration again.
            with backend.transaction() if migration.use_transactions else contextlib.nullcontext():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration, log=False)
            applied.append(str(migration.id))
    return applied
