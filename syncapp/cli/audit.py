"""`flask audit`: events on their way into PostgreSQL, and the log they end up in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from uuid import UUID

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp import task_queue
from syncapp.alerts import Alerts
from syncapp.audit.dead_letters import DeadLetters
from syncapp.audit.drain import Drain
from syncapp.audit.findings import Fork
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.audit.verify import VerifyResult, verify
from syncapp.config import Settings
from syncapp.errors import one_line
from syncapp.history.consistency import Consistency
from syncapp.postgres.database import Database
from syncapp.postgres.schema import drop_partitions
from syncapp.store.client import connect as connect_store
from syncapp.store.keys import Keyspace


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""
    group = click.Group("audit", help="Events on their way into PostgreSQL, and the log they end up in.")
    for command in (_status, _drain, _redrive, _retention, _verify):
        group.add_command(command(settings))
    return group


def _status(settings: Settings) -> click.Command:
    @click.command("status")
    def status() -> None:
        """Show how many events wait, by bucket, and the counts of the queue."""
        outbox, tally = _outbox(settings), _tally(settings)
        with _failing_in_one_line("the queue could not be read"):
            backlogs = outbox.backlogs()
        click.echo("bucket  waiting  active  oldest")
        for bucket, found in backlogs.items():
            if found.oldest_age_ms is not None:
                click.echo(f"{bucket:6}  {found.waiting:7}  {found.active:6}  {found.oldest_age_ms / 1000:.1f} s")
        waiting, active = (sum(getattr(each, name) for each in backlogs.values()) for name in ("waiting", "active"))
        oldest_ms = max(found.oldest_age_ms or 0 for found in backlogs.values())
        click.echo(f" total  {waiting:7}  {active:6}  {oldest_ms / 1000:.1f} s")
        with _failing_in_one_line("the counts of the queue could not be read"):
            queue = tally.read()
        click.echo(
            f"completed {queue.completed}, failed {queue.failed}, delayed {queue.delayed}, {queue.rate_per_s} a second"
        )

    return status


def _drain(settings: Settings) -> click.Command:
    @click.command("drain")
    def drain() -> None:
        """Move all events into PostgreSQL now, without a worker; exit code 1 when some could not be moved."""
        outbox = _outbox(settings)
        with _log(settings) as (_, audit):
            moved, failures = Drain(outbox, audit, batch=settings.audit_batch, count=_tally(settings).add).run_all()
        if failures:
            reasons = "; ".join(f"{', '.join(map(str, buckets))} ({reason})" for reason, buckets in failures.items())
            raise click.ClickException(f"moved {moved} events, but not all of buckets {reasons}; nothing is lost")
        click.echo(f"Moved {moved} events.")

    return drain


def _redrive(settings: Settings) -> click.Command:
    @click.command("redrive")
    def redrive() -> None:
        """Store dead letters once more, on the path of all events; what went through is marked, and kept."""
        with _failing_in_one_line("not every dead letter was driven"), _log(settings) as (database, audit):
            letters = DeadLetters(database)
            done, left = letters.redrive(audit)
            count = letters.count()
        click.echo(f"{done} dead letters went through, {left} did not.")
        try:
            _tally(settings).set_failed(count)
        except RedisError as error:  # a worker puts the count right within ten minutes
            click.echo(f"Their count in Redis stays as it was for now: {one_line(error)}", err=True)

    return redrive


def _retention(settings: Settings) -> click.Command:
    @click.command("retention")
    @click.option("--months", type=click.IntRange(1, 1200), required=True, help="Months that are kept.")
    def retention(months: int) -> None:
        """Drop months of the log that ended longer ago, unless one of their sessions is still written to."""
        with (
            _failing_in_one_line("nothing was dropped"),
            contextlib.closing(Database(settings.database_url)) as database,
            database.transaction() as cursor,
        ):
            dropped = drop_partitions(cursor, months)
        click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There is nothing to drop.")

    return retention


def _verify(settings: Settings) -> click.Command:
    @click.command("verify")
    @click.argument("session", type=click.UUID, required=False)
    def check(session: UUID | None) -> None:
        """Check that the log is as committed: all of it, or of one SESSION; exit code 1 names what is not.

        Every row against its hash and its message, every chain, gap and total, every snapshot against the
        patches, and the newest commits against the store. A fork that dead letters explain is told, and no fault.
        """
        parity = Consistency(connect_store(settings), Keyspace(settings.sync_buckets), settings.database_url)
        checked, name = VerifyResult(), str(session) if session else None
        bad: set[str] = set()
        forks = 0
        with _failing_in_one_line("not everything was checked"):
            for found in chain(verify(settings.database_url, checked, name), parity.compare(name)):
                if isinstance(found, Fork):
                    forks += 1
                    click.echo(str(found))
                    continue
                if found.session_id not in bad:
                    click.echo(str(found))
                bad.add(found.session_id)
        click.echo(f"Read {checked.events} events of {checked.sessions} sessions.")
        if name and not checked.sessions:
            raise click.ClickException("the log knows no such session")
        if bad:
            raise click.ClickException(f"sessions that are not as they were committed: {len(bad)}")
        click.echo("All is as committed.")
        if forks:
            click.echo(f"Forks that dead letters explain: {forks}.")

    return check


@contextlib.contextmanager
def _failing_in_one_line(what: str) -> Iterator[None]:
    try:
        yield
    except (RedisError, psycopg2.Error, ValueError) as error:  # the last: Redis holds something that is not a number
        raise click.ClickException(f"{what}: {one_line(error)}") from error


@contextlib.contextmanager
def _log(settings: Settings) -> Iterator[tuple[Database, AuditLog]]:
    alerts, database = Alerts(settings), Database(settings.database_url)
    try:
        yield database, AuditLog(database, alerts)
    finally:
        database.close()
        alerts.close()


def _outbox(settings: Settings) -> Outbox:
    client = connect_store(settings, decode=False)
    return Outbox(client, Keyspace(settings.sync_buckets), claim_idle_s=settings.audit_claim_idle_s)


def _tally(settings: Settings) -> QueueCounts:
    client = connect_store(settings, decode=False)
    return QueueCounts(client, Keyspace(settings.sync_buckets), task_queue.connect(settings).scheduled_count)
