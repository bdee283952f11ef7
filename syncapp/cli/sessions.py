"""`flask sessions`: lists and recovers sessions."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.cli.buckets import command as buckets_command
from syncapp.cli.counts import counted
from syncapp.cli.erase import command as erase_command
from syncapp.cli.rebucket import command as rebucket_command
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT
from syncapp.domain.results import Claim
from syncapp.domain.schemas import session_id
from syncapp.domain.session_ids import qualified
from syncapp.errors import AuditIncomplete, StoreUnavailable, SyncError, one_line
from syncapp.history.queries import HistoryQueries
from syncapp.history.read_pool import ReadPool
from syncapp.history.recovery import Outcome, Recovery
from syncapp.history.sql import TIMEOUTS_BETWEEN
from syncapp.postgres.database import Database
from syncapp.store.bucket_record import require_buckets
from syncapp.store.client import connect as connect_store
from syncapp.store.clock_steps import agreed_steps, recorded_steps
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore

_INSTANT = click.DateTime(["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"])  # the offset is required
_UNDRAINED = "buckets not drained"
_CLAIM = Claim(request_id="flask-sessions-recover")


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""
    group = click.Group("sessions", help="List, recover, erase and move sessions.")
    group.add_command(_list(settings))
    group.add_command(_recover(settings))
    group.add_command(erase_command(settings))
    group.add_command(rebucket_command(settings))
    group.add_command(buckets_command(settings))
    return group


def _list(settings: Settings) -> click.Command:
    @click.command("list")
    @click.option(
        "--expired-by-step", is_flag=True, help="List timeouts caused by a forward step of the store's clock."
    )
    @click.option("--from", "from_at", type=_INSTANT, help="Correct time of the step, if no process observed it.")
    @click.option(
        "--to", "to_at", type=_INSTANT, help="Time that the clock was set to, if no process observed the step."
    )
    def list_sessions(expired_by_step: bool, from_at: datetime | None, to_at: datetime | None) -> None:
        """List the live sessions of the store.

        With --expired-by-step, list the sessions that timed out because of a step of the store's clock.
        """
        if (from_at is None) != (to_at is None) or (from_at and not expired_by_step):
            raise click.UsageError("--from and --to must be given together, and with --expired-by-step")
        try:
            require_buckets(settings)
            if not expired_by_step:
                for each in SessionStore(connect_store(settings), settings).scheduled():
                    click.echo(each)
                return
            spans = [(from_at, to_at)] if from_at and to_at else _forward_steps(settings)
            for span in spans:
                _show_expired(settings, *span)
            if not spans:
                click.echo("No forward step of the store's clock was observed.")
        except (RedisError, psycopg2.Error, SyncError) as error:
            raise click.ClickException(f"the sessions could not be listed: {one_line(error)}") from error

    return list_sessions


def _forward_steps(settings: Settings) -> list[tuple[datetime, datetime]]:
    """Return the correct time and the time of the store's clock at each forward step that processes agree on."""
    steps = agreed_steps(recorded_steps(connect_store(settings), Keyspace(settings.sync_buckets)))
    return [(_instant(step.before_ms), _instant(step.after_ms)) for step in steps if step.amount_ms > 0]


def _show_expired(settings: Settings, before: datetime, after: datetime) -> None:
    """List the timeouts at instants that the clock skipped."""
    click.echo(f"The store's clock went from {_iso(before)} to {_iso(after)}:")
    with contextlib.closing(Database(settings.database_url)) as database, database.transaction() as cursor:
        # This reads the whole log, because no index is by time alone.
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(TIMEOUTS_BETWEEN, [before, after])
        found = cursor.fetchall()
        for session, epoch, version, event, at_ms, participant in found:
            of = f" {participant}" if participant else ""
            click.echo(f"  {session} epoch {epoch} version {version}: {event}{of} at {_iso(_instant(at_ms))}")
    click.echo(f"  {counted(len(found), 'timeout')}")


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _recover(settings: Settings) -> click.Command:
    @click.command("recover")
    @click.argument("session", nargs=-1)
    @click.option(
        "--all", "is_all", is_flag=True, help="Recover every session that is live in the audit log or in Redis."
    )
    @click.option(
        "--clock",
        type=click.Choice(["run", "freeze", "credit"]),
        help="What the clocks did meanwhile (default: RECOVERY_CLOCK).",
    )
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the named sessions.")
    def recover(session: tuple[str, ...], is_all: bool, clock: str | None, tenant: str) -> None:
        """Restore sessions from the audit log.

        Restores sessions that Redis has lost, or has in an older state than the log.
        """
        if bool(session) == is_all:
            raise click.UsageError("give either session ids or --all")
        try:
            named = [qualified(tenant, session_id(each)) for each in session]
        except SyncError as error:
            raise click.UsageError(error.message) from error
        try:
            counts = _recover_sessions(settings, None if is_all else named, clock)
        except (RedisError, psycopg2.Error, SyncError) as error:
            raise click.ClickException(f"the recovery was not finished, run it again: {one_line(error)}") from error
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no sessions")
        if counts["failed"] or counts[Outcome.AHEAD] or counts[_UNDRAINED]:
            raise click.exceptions.Exit(1)

    return recover


def _recover_sessions(settings: Settings, named: Iterable[str] | None, clock: str | None) -> Counter[str]:
    """Drain, recover the named sessions or all, print each one that differed, and return the counts of outcomes."""
    require_buckets(settings)
    counts = Counter[str]()
    outbox = Outbox.of(connect_store(settings, decode=False), settings)
    store = SessionStore(connect_store(settings), settings)
    with (
        contextlib.closing(ReadPool(settings.database_url, timeout_s=60)) as pool,
        contextlib.closing(Database(settings.database_url)) as database,
    ):
        # Events not yet drained belong to the last known state.
        _, failures = Drain(outbox, AuditLog(database), batch=settings.audit_batch).run_all()
        for reason, buckets in failures.items():
            counts[_UNDRAINED] += len(buckets)
            click.echo(f"events of buckets {', '.join(map(str, buckets))} are not drained yet: {reason}", err=True)
        history = HistoryQueries(pool, store.time_ms)
        recovery, forks = Recovery(store, history, outbox, settings, clock), history.forks()
        for each in recovery.all_session_ids() if named is None else named:
            try:
                outcome: str = recovery.recover(each, _CLAIM, forks=forks)
            except StoreUnavailable as error:
                # Continue after errors of one session. A full store refuses to restore it, but can delete another.
                if not isinstance(error, AuditIncomplete) and error.details.get("reason") != "OutOfMemoryError":
                    raise
                outcome = "failed"
                click.echo(f"{each} failed: {error.message}", err=True)
            counts[outcome] += 1
            if outcome not in (Outcome.CURRENT, "failed"):
                click.echo(f"{each} {outcome}")
    return counts
