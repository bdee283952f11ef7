"""Commands of `flask`: the database's schema, and the audit trail."""

from __future__ import annotations

from itertools import chain
from uuid import UUID

import click
import psycopg2
from flask import Flask
from redis.exceptions import RedisError

from syncapp import db, redis
from syncapp.audit import AuditLog
from syncapp.config import Settings
from syncapp.drains import Drain
from syncapp.keys import Keyspace
from syncapp.outbox import Outbox
from syncapp.parity import Parity
from syncapp.verifier import Checked
from syncapp.verifier import verify as verify_log


def register(app: Flask, settings: Settings) -> None:
    """Add the commands to an application."""
    app.cli.add_command(_database_commands(settings))
    app.cli.add_command(_audit_commands(settings))


def _database_commands(settings: Settings) -> click.Group:
    @click.group("db")
    def group() -> None:
        """PostgreSQL's schema."""

    @group.command()
    def upgrade() -> None:
        """Apply the migrations that are not applied yet."""
        try:
            applied = db.upgrade(settings.database_url, partition_months=settings.audit_partition_months)
        except db.UpgradeFailed as error:
            raise click.ClickException(f"the database was not upgraded: {error}") from error
        click.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")

    return group


def _audit_commands(settings: Settings) -> click.Group:
    @click.group("audit")
    def group() -> None:
        """Events on their way into PostgreSQL."""

    @group.command()
    def status() -> None:
        """Show how many events wait, by bucket."""
        outbox = _outbox(settings)
        try:
            backlogs = outbox.backlogs()
        except RedisError as error:
            raise click.ClickException(f"Redis does not answer: {db.one_line(error)}") from error
        click.echo("bucket  waiting  active  oldest")
        for bucket, found in backlogs.items():
            if found.oldest_age_ms is not None:
                click.echo(f"{bucket:6}  {found.waiting:7}  {found.active:6}  {found.oldest_age_ms / 1000:.1f} s")
        waiting, active = (sum(getattr(found, name) for found in backlogs.values()) for name in ("waiting", "active"))
        oldest_ms = max((found.oldest_age_ms or 0 for found in backlogs.values()), default=0)
        click.echo(f" total  {waiting:7}  {active:6}  {oldest_ms / 1000:.1f} s")

    @group.command()
    def drain() -> None:
        """Move all events into PostgreSQL now, without a worker."""
        outbox, database = _outbox(settings), db.Database(settings.database_url)
        work = Drain(outbox, AuditLog(database), batch=settings.audit_batch)
        try:
            moved = sum(work.run(bucket).moved for bucket in outbox.buckets)
        except (RedisError, psycopg2.Error) as error:
            raise click.ClickException(f"the drain failed, nothing is lost: {db.one_line(error)}") from error
        finally:
            database.close()
        click.echo(f"Moved {moved} events.")

    group.add_command(_verify_command(settings))
    return group


def _verify_command(settings: Settings) -> click.Command:
    @click.command("verify")
    @click.argument("session", type=click.UUID, required=False)
    def verify(session: UUID | None) -> None:
        """Check that the log is as committed: all of it, or of one SESSION; exit code 1 names what is not.

        Every row against its hash and its message, every chain, gap and total, every snapshot against the
        patches, and the newest commits against the store.
        """
        parity = Parity(redis.connect(settings), Keyspace(settings.sync_buckets), settings.database_url)
        checked, name = Checked(), str(session) if session else None
        bad: set[str] = set()
        try:
            for fault in chain(verify_log(settings.database_url, checked, name), parity.compare(name)):
                if fault.session_id not in bad:
                    click.echo(str(fault))
                bad.add(fault.session_id)
        except (RedisError, psycopg2.Error) as error:
            raise click.ClickException(f"not everything was checked: {db.one_line(error)}") from error
        click.echo(f"Read {checked.events} events of {checked.sessions} sessions.")
        if bad:
            raise click.ClickException(f"sessions that are not as they were committed: {len(bad)}")
        click.echo("All is as committed.")

    return verify


def _outbox(settings: Settings) -> Outbox:
    client = redis.connect(settings, decode=False)
    return Outbox(client, Keyspace(settings.sync_buckets), claim_idle_s=settings.audit_claim_idle_s)
