"""`flask audit`: the audit queue and the audit log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from uuid import UUID

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp import task_queue
from syncapp.alerts import Alerts
from syncapp.audit.dead_letters import DeadLetters
from syncapp.audit.drain import Drain
from syncapp.audit.findings import AuditFault, Fork
from syncapp.audit.last_verification import LastVerification, Outcome, Verification
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.audit.verify import VerifyResult, verify
from syncapp.cli.counts import counted, were
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT
from syncapp.domain.session_ids import log_id, qualified
from syncapp.errors import StoreUnavailable, one_line
from syncapp.history.consistency import Consistency
from syncapp.postgres.database import Database
from syncapp.postgres.schema import drop_partitions
from syncapp.queue_server import QueueServer
from syncapp.store.bucket_record import WrongBuckets, require_buckets
from syncapp.store.client import connect as connect_store
from syncapp.store.keys import Keyspace


def commands(settings: Settings) -> click.Group:
    """Return the group of commands."""
    group = click.Group("audit", help="Manage the audit queue and the audit log.")
    for command in (_status, _drain, _redrive, _retention, _verify):
        group.add_command(command(settings))
    return group


def _status(settings: Settings) -> click.Command:
    @click.command("status")
    def status() -> None:
        """Show waiting events by bucket, and the counts of the queue."""
        outbox, counts = _outbox(settings), _counts(settings)
        with _one_line_errors("the queue could not be read"):
            backlogs = outbox.backlogs()
        click.echo("bucket  waiting  active  oldest")
        for bucket, backlog in backlogs.items():
            if backlog.oldest_age_ms is not None:
                click.echo(f"{bucket:6}  {backlog.waiting:7}  {backlog.active:6}  {backlog.oldest_age_ms / 1000:.1f} s")
        waiting, active = (sum(getattr(each, name) for each in backlogs.values()) for name in ("waiting", "active"))
        oldest_ms = max(backlog.oldest_age_ms or 0 for backlog in backlogs.values())
        click.echo(f" total  {waiting:7}  {active:6}  {oldest_ms / 1000:.1f} s")
        with _one_line_errors("the counts of the queue could not be read"):
            queue = counts.read()
        delayed = "unknown" if queue.delayed is None else queue.delayed
        click.echo(
            f"completed {queue.completed}, failed {queue.failed}, delayed {delayed}, {queue.rate_per_s} a second"
        )

    return status


def _drain(settings: Settings) -> click.Command:
    @click.command("drain")
    def drain() -> None:
        """Move all events to PostgreSQL now.

        No worker is needed. The exit code is 1 if some events could not be moved.
        """
        outbox = _outbox(settings)
        with _log(settings) as (_, audit):
            moved, failures = Drain(outbox, audit, batch=settings.audit_batch, count=_counts(settings).add).run_all()
        if failures:
            reasons = "; ".join(f"{', '.join(map(str, buckets))} ({reason})" for reason, buckets in failures.items())
            raise click.ClickException(
                f"moved {counted(moved, 'event')}, but not all of buckets {reasons}; no event is lost"
            )
        click.echo(f"Moved {counted(moved, 'event')}.")

    return drain


def _redrive(settings: Settings) -> click.Command:
    @click.command("redrive")
    def redrive() -> None:
        """Try again to store dead letters.

        Dead letters that are stored are marked and kept.
        """
        with _one_line_errors("not every dead letter was redriven"), _log(settings) as (database, audit):
            dead_letters = DeadLetters(database)
            done, failed = dead_letters.redrive(audit)
            count = dead_letters.count()
        click.echo(f"{counted(done, 'dead letter')} {were(done)} stored, {failed} {were(failed)} not.")
        try:
            _counts(settings).set_failed(count)
        except RedisError as error:  # a worker corrects the count within 10 minutes
            click.echo(f"Their count in Redis is not updated yet: {one_line(error)}", err=True)

    return redrive


def _retention(settings: Settings) -> click.Command:
    @click.command("retention")
    @click.option("--months", type=click.IntRange(1, 1200), required=True, help="Number of months to keep.")
    def retention(months: int) -> None:
        """Drop old months of the audit log.

        Months with a session that is still written to are kept.
        """
        with (
            _one_line_errors("nothing was dropped"),
            contextlib.closing(Database(settings.database_url)) as database,
            database.transaction() as cursor,
        ):
            dropped = drop_partitions(cursor, months)
        click.echo(f"Dropped {', '.join(dropped)}." if dropped else "There is nothing to drop.")

    return retention


def _verify(settings: Settings) -> click.Command:
    @click.command("verify")
    @click.argument("session", type=click.UUID, required=False)
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Tenant of the SESSION.")
    def check(session: UUID | None, tenant: str) -> None:
        """Check the audit log, or one SESSION of it.

        Compares every row with its hash and its message, every snapshot with the patches, and the newest commits with
        the store; checks every hash chain, gap, private part and total. The exit code is 1 if something is not as it
        was committed.
        A fork that dead letters explain is reported, but is not an error. The outcome of a check of the whole log is
        kept in Redis, for GET /v1/audit/verification.
        """
        _require_buckets(settings)
        started_ms = _now_ms()
        consistency = Consistency(connect_store(settings), Keyspace(settings.sync_buckets), settings.database_url)
        result, name = VerifyResult(), qualified(tenant, str(session)) if session else None
        bad: set[str] = set()
        forks: list[Fork] = []

        def record(outcome: Outcome) -> None:
            if name is None:
                counts = (result.sessions, result.events, len(bad), len(forks), result.erased_parts)
                _record(settings, Verification(outcome, started_ms, _now_ms(), *counts))

        with _one_line_errors("not everything was checked", before=lambda: record("incomplete")):
            _print(
                chain(verify(settings.database_url, result, name and log_id(name)), consistency.compare(name)),
                bad,
                forks,
            )
        record("faults" if bad else "as_committed")
        click.echo(f"Read {counted(result.events, 'event')} of {counted(result.sessions, 'session')}.")
        if name and not result.sessions:
            raise click.ClickException("the log has no such session")
        if bad:
            raise click.ClickException(f"sessions that are not as committed: {len(bad)}")
        click.echo("Everything is as committed.")
        if result.erased_parts:
            parts, sessions = counted(result.erased_parts, "private part"), counted(result.erased_sessions, "session")
            click.echo(f"{parts} of {sessions} {were(result.erased_parts)} erased.")
        if forks:
            click.echo(f"Forks that dead letters explain: {len(forks)}.")

    return check


def _print(findings: Iterable[AuditFault | Fork], bad: set[str], forks: list[Fork]) -> None:
    """Print the forks, and the first fault of each session; collect them in `bad` and `forks`."""
    for finding in findings:
        if isinstance(finding, Fork):
            forks.append(finding)
        elif finding.session_id in bad:
            continue
        else:
            bad.add(finding.session_id)
        click.echo(str(finding))


def _record(settings: Settings, verification: Verification) -> None:
    """Keep the outcome of a run in Redis, if that accepts it: it is shown, but nothing depends on it."""
    try:
        LastVerification(connect_store(settings), Keyspace(settings.sync_buckets)).record(verification)
    except RedisError as error:
        click.echo(f"The outcome is not kept in Redis: {one_line(error)}", err=True)


def _now_ms() -> int:
    return int(time.time() * 1000)


@contextlib.contextmanager
def _one_line_errors(what: str, before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn an error of a server into the command's; `before` is called first."""
    try:
        yield
    except (RedisError, psycopg2.Error, ValueError) as error:  # ValueError: Redis has a value that is not a number
        before()
        raise click.ClickException(f"{what}: {one_line(error)}") from error


@contextlib.contextmanager
def _log(settings: Settings) -> Iterator[tuple[Database, AuditLog]]:
    alerts, database = Alerts(settings), Database(settings.database_url)
    try:
        yield database, AuditLog(database, alerts)
    finally:
        database.close()
        alerts.close()


def _require_buckets(settings: Settings) -> None:
    """Stop if the store has other buckets. If it does not answer, the command says so itself."""
    try:
        require_buckets(settings)
    except WrongBuckets as error:
        raise click.ClickException(error.message) from error
    except StoreUnavailable:
        pass


def _outbox(settings: Settings) -> Outbox:
    _require_buckets(settings)
    return Outbox.of(connect_store(settings, decode=False), settings)


def _counts(settings: Settings) -> QueueCounts:
    client = connect_store(settings, decode=False)
    queue = QueueServer(settings, task_queue.connect(settings))
    return QueueCounts(client, Keyspace(settings.sync_buckets), queue.scheduled_count)
