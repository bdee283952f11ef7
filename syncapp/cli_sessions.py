"""`flask sessions`: sessions in Redis and in the log."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp import db, redis
from syncapp.audit import AuditLog
from syncapp.commands import Claim
from syncapp.config import Settings
from syncapp.drains import Drain
from syncapp.errors import AuditIncomplete, SyncError
from syncapp.history import History
from syncapp.keys import Keyspace
from syncapp.models import session_id
from syncapp.outbox import Outbox
from syncapp.pool import ReadPool
from syncapp.recovery import Outcome, Recovery
from syncapp.sessions import SessionStore

_CLAIM = Claim(request_id="flask-sessions-recover")


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""
    group = click.Group("sessions", help="Sessions, in Redis and in the log.")
    group.add_command(_recover(settings))
    return group


def _recover(settings: Settings) -> click.Command:
    @click.command("recover")
    @click.argument("session", nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="Every session that the log or Redis takes for live.")
    @click.option("--clock", type=click.Choice(["run", "freeze", "credit"]), help="Instead of RECOVERY_CLOCK.")
    def recover(session: tuple[str, ...], everything: bool, clock: str | None) -> None:
        """Bring back from the log what Redis has lost, or has an older state of."""
        if bool(session) == everything:
            raise click.UsageError("name sessions, or give --all")
        try:
            named = [session_id(each) for each in session]
        except SyncError as error:
            raise click.UsageError(error.message) from error
        try:
            found = _recovered(settings, None if everything else named, clock)
        except (RedisError, psycopg2.Error, SyncError) as error:
            raise click.ClickException(f"the recovery was not finished, run it again: {db.one_line(error)}") from error
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items())) or "no sessions")
        if found["failed"] or found[Outcome.AHEAD]:
            raise click.exceptions.Exit(1)

    return recover


def _recovered(settings: Settings, named: Iterable[str] | None, clock: str | None) -> Counter[str]:
    """Drain, then recover the named sessions, or all; tell of each that was not as it should be, count the outcomes."""
    keyspace, found = Keyspace(settings.sync_buckets), Counter[str]()
    outbox = Outbox(redis.connect(settings, decode=False), keyspace, claim_idle_s=settings.audit_claim_idle_s)
    store = SessionStore(redis.connect(settings), settings)
    with (
        contextlib.closing(ReadPool(settings.database_url, timeout_s=60)) as pool,
        contextlib.closing(db.Database(settings.database_url)) as database,
    ):
        drain = Drain(outbox, AuditLog(database), batch=settings.audit_batch)
        for bucket in outbox.buckets:  # what is still on its way belongs to the last known state
            drain.run(bucket)
        history = History(pool, store.time_ms)
        recovery, forks = Recovery(store, history, outbox, settings, clock), history.forks()
        for each in recovery.everything() if named is None else named:
            try:
                outcome: str = recovery.recover(each, _CLAIM, forks=forks)
            except AuditIncomplete as error:
                outcome = "failed"
                click.echo(f"{each} failed: {error.message}", err=True)
            found[outcome] += 1
            if outcome not in (Outcome.CURRENT, "failed"):
                click.echo(f"{each} {outcome}")
    return found
