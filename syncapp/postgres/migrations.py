"""Migrations: reads which ones are applied, and applies the missing ones."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg2
from psycopg2 import extensions

from syncapp.errors import one_line

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
IS_READ_ONLY = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
"""Selects whether the server is a standby, and whether it is read-only."""
_UPGRADE_LOCK = 0x53796E63417070  # "SyncApp" in ASCII; other users of the database must not use this number
_UPGRADE_LOCK_TIMEOUT_S = 120


class UpgradeFailed(Exception):
    """A migration could not be applied. The text is one line."""


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
    """Apply the missing migrations and return their names. Only one upgrade runs at a time.

    Writes nothing when nothing is missing. Raises `UpgradeFailed`, and what psycopg2 raises.
    """
    with connection, connection.cursor() as cursor:
        if not known() - applied_to(cursor):
            return []
    with connection, connection.cursor() as cursor:
        # A transaction on a separate connection holds the lock, so it is released however the process ends.
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute(f"SET LOCAL lock_timeout = '{_UPGRADE_LOCK_TIMEOUT_S}s'")
        cursor.execute(IS_READ_ONLY)
        is_standby, is_read_only = cursor.fetchone() or (False, False)
        if not is_read_only:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_UPGRADE_LOCK])
        missing = ", ".join(sorted(known() - applied_to(cursor)))
        if not missing:
            return []
        if is_read_only:
            what = "a standby" if is_standby else "read-only"
            raise UpgradeFailed(f"{missing} must be applied, but the database is {what}")
        try:
            return _apply_migrations(database_url)
        except psycopg2.errors.InsufficientPrivilege as error:
            raise UpgradeFailed(f"{missing} must be applied, but this role may not: {one_line(error)}") from error


def _apply_migrations(database_url: str) -> list[str]:
    """Apply the missing migrations; the caller holds the upgrade lock."""
    # Imported here because only this command needs them, and they load slowly.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlBackend
    from yoyo.connections import DatabaseURI
    from yoyo.migrations import default_migration_table

    # libpq parses the URL, because it supports sockets, host lists and more that yoyo's parser does not.
    parameters = extensions.parse_dsn(database_url)
    uri = DatabaseURI("postgresql", None, None, None, None, parameters.pop("dbname", None), parameters)
    applied = []
    with PostgresqlBackend(uri, default_migration_table) as backend:
        backend.init_database()
        # yoyo's own lock is a row, which stays if the process that holds it is killed. While we hold our lock, that row
        # can only be left over.
        backend.break_lock()
        for migration in backend.to_apply(read_migrations(str(MIGRATIONS))):
            migration.load()
            # By itself, yoyo records a migration in a second transaction. A kill between the two would make it apply
            # the migration again.
            with backend.transaction() if migration.use_transactions else contextlib.nullcontext():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration, log=False)
            applied.append(str(migration.id))
    return applied
