"""`flask sessions erase`: removes what may be personal data."""

from __future__ import annotations

import contextlib

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp.audit.drain import Drain
from syncapp.audit.erasures import erase_principal
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.cli.counts import counted
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT, is_tenant
from syncapp.domain.results import Claim
from syncapp.domain.schemas import session_id
from syncapp.domain.session_ids import qualified
from syncapp.errors import SyncError, one_line
from syncapp.postgres.database import Database
from syncapp.store.bucket_record import require_buckets
from syncapp.store.client import connect as connect_store
from syncapp.store.keys import Keyspace
from syncapp.store.links import LinkStore
from syncapp.store.replication import Replication
from syncapp.store.sessions import SessionStore

_CLAIM = Claim(request_id="flask-sessions-erase")


def command(settings: Settings) -> click.Command:
    """Return the command."""

    @click.command("erase")
    @click.argument("session", required=False)
    @click.option("--principal", help="Erase what this principal did in all sessions of the tenant, instead.")
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the session or principal.")
    def erase(session: str | None, principal: str | None, tenant: str) -> None:
        """Erase a session, or a principal, from the store and the audit log.

        Deletes the SESSION, and erases its metadata, reasons, results and principals from the audit log. With
        --principal, erases the principal and the reasons and results that it gave; sessions and their metadata stay.
        """
        if (session is None) == (principal is None) or not is_tenant(tenant):
            raise click.UsageError("give either a session id or --principal, and a valid --tenant")
        try:
            name = qualified(tenant, session_id(session)) if session else ""
        except SyncError as error:
            raise click.UsageError(error.message) from error
        try:
            require_buckets(settings)
            with contextlib.closing(Database(settings.database_url)) as database:
                if name:
                    SessionStore(connect_store(settings), settings).delete(name, _CLAIM, erases=True)
                    _links(settings).forget(name)
                    _drain(settings, database)
                    click.echo("The session is deleted and erased.")
                else:
                    _erase_principal(settings, database, tenant, principal or "")
        except (RedisError, psycopg2.Error, SyncError) as error:
            raise click.ClickException(f"the erasure was not finished, run it again: {one_line(error)}") from error

    return erase


def _erase_principal(settings: Settings, database: Database, tenant: str, principal: str) -> None:
    until_ms = SessionStore(connect_store(settings), settings).time_ms()
    _links(settings).forget_creator(tenant, principal)
    _drain(settings, database)
    rows, created = erase_principal(database, tenant, principal, until_ms)
    click.echo(f"Erased the principal from {counted(rows, 'event')}.")
    if created:
        them = "that session if it names" if created == 1 else "those sessions if they name"
        click.echo(f"It created {counted(created, 'session')}, whose metadata stay: erase {them} the principal.")


def _links(settings: Settings) -> LinkStore:
    client = connect_store(settings)
    return LinkStore(client, Keyspace(settings.sync_buckets), Replication.of(client, settings))


def _drain(settings: Settings, database: Database) -> None:
    """Move all events into the log, so that they are erased as well."""
    outbox = Outbox.of(connect_store(settings, decode=False), settings)
    _, failures = Drain(outbox, AuditLog(database), batch=settings.audit_batch).run_all()
    for reason, buckets in failures.items():
        names = ", ".join(map(str, buckets))
        raise click.ClickException(f"buckets {names} are not drained yet, run it again: {reason}")
