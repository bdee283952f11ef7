"""`flask sessions rebucket`: moves the sessions to another number of buckets, while clients are refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import click
import psycopg2
from redis.exceptions import RedisError

from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.cli.counts import counted
from syncapp.config import Settings, is_given
from syncapp.errors import SyncError, one_line
from syncapp.loops import Loops
from syncapp.postgres.database import Database
from syncapp.store.bucket_move import BucketMove, Inventory
from syncapp.store.bucket_record import MAX_BUCKETS, VALID_S, BucketCount, BucketRecord
from syncapp.store.client import TRANSLATION
from syncapp.store.client import connect as connect_store
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry
from syncapp.store.replication import Replication
from syncapp.store.run_lease import LEASE_S, RunLease

PAUSE_S = VALID_S + 1
"""Time after which no process relies on the record that was there before."""
_PATIENCE_S = 15.0  # for processes that go on serving, and for events that another reader has
_DRAIN_S = 2.0  # of one bucket, between two renewals of the lease
_PROGRESS_S = 2.0


class NotBegun(Exception):
    """The run has changed nothing."""


class NotReady(SyncError):
    """Events are not stored yet, or clients are still served."""


def command(settings: Settings) -> click.Command:
    """Return the command."""

    @click.command("rebucket")
    @click.option(
        "--to",
        "target",
        type=click.IntRange(1, MAX_BUCKETS),
        help=f"New number of buckets (default: SYNC_BUCKETS, or {Settings().sync_buckets} if it is not set).",
    )
    @click.option("--dry-run", is_flag=True, help="Show what would be moved; change nothing.")
    def rebucket(target: int | None, dry_run: bool) -> None:
        """Move the sessions to another number of buckets.

        Clients are refused meanwhile (503), and all processes must be restarted afterwards. If the command is stopped,
        run it again: it continues, and until then clients are refused.
        """
        chosen = target or (settings if is_given("sync_buckets") else Settings()).sync_buckets
        run = Rebucket(settings, chosen, say=click.echo)
        try:
            run.show() if dry_run else run.run()
        except NotBegun as error:
            raise click.ClickException(f"nothing was changed: {error}") from error
        except (RedisError, psycopg2.Error, SyncError) as error:
            raise click.ClickException(f"the move was not finished, run it again: {one_line(error)}") from error

    return rebucket


class Rebucket:
    """One run. say: prints a line. step: called before each batch; tests end the run there."""

    def __init__(
        self,
        settings: Settings,
        target: int,
        *,
        say: Callable[[str], None],
        step: Callable[[], None] = lambda: None,
        pause_s: float | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._settings = settings
        self._target = target
        self._say = say
        self._after_renewal = step
        # A command may wait for a connection, for its opening, for its reply and for another node before it is sent.
        self._pause_s = PAUSE_S + 4 * settings.redis_timeout_s if pause_s is None else pause_s
        self._patience_s = patience_s
        self._client = connect_store(settings, decode=False)
        self._record = BucketRecord(self._client)
        self._lease = RunLease(self._client, Keyspace().rebucket_lease())
        self._move: BucketMove | None = None
        self._told = 0
        self._next_progress_s = 0.0

    def show(self) -> None:
        """Print what a run would do."""
        count = self._checked(self._record.find(self._settings.sync_buckets))
        found = self._move_of(count).inventory()
        with TRANSLATION:
            backlogs = self._outbox(count.buckets).backlogs()
        waiting = sum(each.waiting + each.active for each in backlogs.values())
        self._say(f"The sessions are in {counted(count.buckets, 'bucket')}.")
        self._say(f"A run would move {found.to_move} of {_keys(found)} to {counted(self._target, 'bucket')}.")
        self._say(f"Before that, it would store {counted(waiting, 'event')} in PostgreSQL.")
        if serving := self._serving():
            self._say(f"These processes would refuse clients, and must then be restarted: {', '.join(serving)}.")
        self._tell_strays(found)

    def run(self) -> None:
        """Move the sessions, or continue what an earlier run has begun. Raises `NotBegun`."""
        count = self._checked(self._record.read_or_write(self._settings.sync_buckets))
        if missing := self._move_of(count).missing_rights():
            raise NotBegun(f"redis denies this user {', '.join(missing)} (docs/keys.md)")
        if not self._lease.take():
            raise NotBegun(f"another run is active, or was stopped less than {LEASE_S:.0f} s ago")
        try:
            self._run()
        finally:
            with contextlib.suppress(SyncError):
                self._lease.release()

    def _run(self) -> None:
        started_s = time.monotonic()
        count = self._checked(self._record.read_or_write(self._settings.sync_buckets))
        if is_new := count.target is None:
            count = self._begin(count)
        else:
            self._say(f"Continuing the move from {count.buckets} to {self._target} buckets.")
        move = self._move = self._move_of(count)
        found = None
        if not count.is_finishing:
            self._wait_until_refused(count, is_new=is_new)
            found = self._move_all(count, move)
            count = replace(count, is_finishing=True)
            self._record.write(count)
        self._step()
        move.finish()
        self._step()
        self._record.write(BucketCount(self._target))
        with TRANSLATION:
            self._client.delete(Keyspace().processes_away())
        seconds = time.monotonic() - started_s
        self._say(f"The sessions are in {counted(self._target, 'bucket')} now; it took {seconds:.1f} s.")
        self._say(f"Set SYNC_BUCKETS={self._target} if it is set, and restart all web and worker processes.")
        if found:
            self._tell_strays(found)

    def _begin(self, count: BucketCount) -> BucketCount:
        """Store the events that wait, and have all processes refuse clients. Raises `NotBegun`."""
        try:
            self._drain(count.buckets)
        except (psycopg2.Error, NotReady) as error:
            raise NotBegun(f"events can't be stored in PostgreSQL: {one_line(error)}") from error
        self._step()
        with TRANSLATION:
            self._client.delete(Keyspace().processes_away())  # reports during an earlier move
        count = replace(count, target=self._target)
        self._record.write(count)
        return count

    def _wait_until_refused(self, count: BucketCount, *, is_new: bool) -> None:
        """Wait until no process uses the sessions. If one goes on and nothing was moved yet, let all go on."""
        self._say("Clients are refused from now on.")
        started_s = time.monotonic()
        while True:
            passed_s = time.monotonic() - started_s
            serving = self._serving()
            if passed_s >= self._pause_s and not serving:
                return
            if passed_s >= max(self._patience_s, self._pause_s):
                break
            self._step()
            time.sleep(0.1)
        names = ", ".join(serving)
        if is_new:
            self._record.write(BucketCount(count.buckets))
            raise NotBegun(f"these processes still serve clients, perhaps of an earlier release; stop them: {names}")
        raise NotReady(f"these processes still serve clients, stop them: {names}")

    def _move_all(self, count: BucketCount, move: BucketMove) -> Inventory:
        move.sets.block()
        self._drain(move.buckets)
        self._wait_until_empty(move.buckets)
        move.sets.put_lists_away()
        move.move_keys()
        self._say(f"Moved {counted(move.moved, 'key')}. Making the sets, and checking them.")
        move.sets.fill()
        verified = move.verify()
        self._say(f"Checked {_keys(verified)}; {counted(verified.live, 'session')} {_is(verified.live)} live.")
        if verified.unscheduled:
            sessions = counted(verified.unscheduled, "live session")
            self._say(f"Web processes will add the missing deadlines of {sessions}.")
        return verified

    def _drain(self, buckets: int) -> None:
        """Store all events. Raises `NotReady`, and what psycopg2 raises."""
        with contextlib.closing(Database(self._settings.database_url)) as database, TRANSLATION:
            outbox = self._outbox(buckets)
            counts = QueueCounts(self._client, outbox.keyspace)
            drain = Drain(outbox, AuditLog(database), batch=self._settings.audit_batch, count=counts.add)
            moved = 0
            for bucket in outbox.buckets:
                more = True
                while more:
                    self._step()
                    drained = drain.run(bucket, at_most_s=_DRAIN_S)
                    moved, more = moved + drained.moved, drained.more
        self._say(f"Stored {counted(moved, 'event')} in PostgreSQL.")

    def _wait_until_empty(self, buckets: int) -> None:
        """Wait until the events that another reader has are stored, too."""
        end_s = time.monotonic() + self._patience_s
        while waiting := self._waiting(buckets):
            if time.monotonic() >= end_s:
                raise NotReady(f"{counted(waiting, 'event')} could not be stored in PostgreSQL")
            time.sleep(0.1)
            self._drain(buckets)

    def _waiting(self, buckets: int) -> int:
        with TRANSLATION:
            return sum(each.waiting + each.active for each in self._outbox(buckets).backlogs().values())

    def _checked(self, count: BucketCount) -> BucketCount:
        """Return the record if a run with this target may begin or continue. Raises `NotBegun`."""
        if count.target is None and count.buckets == self._target:
            raise NotBegun(f"the sessions are in {counted(self._target, 'bucket')} already")
        if count.target not in (None, self._target):
            again = f"flask sessions rebucket --to {count.target}"
            raise NotBegun(f"a move from {count.buckets} to {count.target} buckets was not finished: run {again} first")
        return count

    def _move_of(self, count: BucketCount) -> BucketMove:
        replication = Replication.of(self._client, self._settings)
        return BucketMove(self._client, count.buckets, self._target, replication, self._step)

    def _outbox(self, buckets: int) -> Outbox:
        return Outbox.of(self._client, replace(self._settings, sync_buckets=buckets))

    def _serving(self) -> list[str]:
        """Return the names of the processes that use the sessions."""
        with TRANSLATION:
            seconds, micros = self._client.time()
            registry = ProcessRegistry(self._client, Keyspace(), kind="rebucket", loops=Loops())
            return registry.serving_processes(int(seconds) * 1000 + int(micros) // 1000)

    def _step(self) -> None:
        self._lease.renew()
        self._after_renewal()
        moved = self._move.moved if self._move else 0
        if moved > self._told and time.monotonic() >= self._next_progress_s:
            self._told, self._next_progress_s = moved, time.monotonic() + _PROGRESS_S
            self._say(f"  {counted(moved, 'key')} moved")

    def _tell_strays(self, found: Inventory) -> None:
        if found.strays:
            self._say(f"{counted(len(found.strays), 'key')} in no bucket of theirs stay: {found.strays[0]} …")


def _keys(found: Inventory) -> str:
    kinds = {"session": "sessions", "links": "with links", "idem": "idempotency records"}
    parts = [f"{found.kinds[kind]} {name}" for kind, name in kinds.items()]
    return f"{counted(sum(found.kinds.values()), 'key')} ({', '.join(parts)})"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
