"""The audit log: writes events to PostgreSQL, each exactly once, whatever order they come in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from operator import itemgetter
from typing import TypeVar

import orjson
import psycopg2
import structlog

from syncapp import metrics
from syncapp.audit.copy_format import COLUMNS, COPY_BEGIN, COPY_END
from syncapp.audit.event import AuditEvent, OutboxEntry
from syncapp.audit.totals import Totals
from syncapp.errors import one_line
from syncapp.postgres.database import Cursor, Database

log = structlog.get_logger(__name__)

_CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock: the next attempt goes through
_CONFLICT_ATTEMPTS = 5
_REFUSALS = ("22", "23", "54")  # classes of SQLSTATE that blame the data: values, constraints, limits
_key = itemgetter(AuditEvent._fields.index("key"))
_MOST_NAMED = 10
_MOST_SHOWN = 2000
_T = TypeVar("_T")

_COPY_BYTES = 4_194_304  # a usual batch at once; libpq keeps a buffer of this size for the connection
_COPY = f"COPY {{}} ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT binary)"
# Beside the log first, for events of which some are there already.
_MAKE_INCOMING = "CREATE TEMPORARY TABLE incoming (LIKE sync_events INCLUDING DEFAULTS) ON COMMIT DROP"
_INSERT_INCOMING = f"""
INSERT INTO sync_events ({", ".join(COLUMNS)}) SELECT {", ".join(COLUMNS)} FROM incoming
ORDER BY session_id, epoch, version ON CONFLICT DO NOTHING RETURNING session_id::text, epoch, version
"""  # noqa: S608 made of the constants above
_SELECT_HASHES = """
SELECT session_id::text, epoch, version, stored.content_hash
FROM json_populate_recordset(NULL::sync_events, %s) JOIN sync_events AS stored USING (session_id, epoch, version)
"""
_INSERT_LETTER = """
INSERT INTO sync_dead_letters (bucket, stream_id, kind, error, raw) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be stored; kind is `refused` or `divergent`."""

    entry: OutboxEntry
    kind: str
    error: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of entries: how many were new, how many were known already, and new dead letters."""

    new: int = 0
    repeated: int = 0
    letters: tuple[DeadLetter, ...] = ()

    def __add__(self, other: Stored) -> Stored:
        return Stored(self.new + other.new, self.repeated + other.repeated, self.letters + other.letters)


class AuditLog:
    """Stores entries of outboxes; any number of threads and processes may do so at once.

    alert(kind, **context) is told of dead letters and divergences, once a batch; without it, the log is.
    """

    def __init__(self, database: Database, alert: Callable[..., None] | None = None) -> None:
        self._database = database
        self._alert = alert or log.critical

    def store(self, entries: Iterable[OutboxEntry]) -> Stored:
        """Store entries in one transaction; afterwards each is in the log or among the dead letters.

        Empty entries are passed over. When PostgreSQL refuses an event for what it is, the others are
        stored without it. Raises what psycopg2 raises when PostgreSQL is away: then the same entries may
        be given again, and what was stored of them already is not stored twice.
        """
        events, refused = [], []
        for entry in entries:
            if entry.raw is None:
                continue
            try:
                events.append(AuditEvent.parse(entry))
            except Exception as error:  # noqa: BLE001 whatever is wrong with a message, the others are stored
                refused.append(DeadLetter(entry, "refused", f"{type(error).__name__}: {one_line(error)}"))
        # One order for all transactions: two that meet in the same rows wait for each other, and do not deadlock.
        events.sort(key=_key)
        done: list[Stored] = []
        try:
            self._store(events, done)
            self._keep(refused, done)
        finally:
            # What was committed before PostgreSQL went away is told now: it will not be new again.
            stored = sum(done, Stored())
            metrics.DRAINED.inc(stored.new)
            self._report(stored.letters)
        return stored

    def _store(self, events: Sequence[AuditEvent], done: list[Stored]) -> None:
        """Store events in one transaction, or in halves until the one to blame is alone; add what was done."""
        if not events:
            return
        try:
            try:
                done.append(self._write(lambda cursor: _append(cursor, events)))
            except psycopg2.errors.UniqueViolation:
                done.append(self._write(lambda cursor: _merge(cursor, events)))
        except (psycopg2.Error, TypeError, ValueError) as error:  # the last two: no JSON can say what it tells
            code = error.pgcode if isinstance(error, psycopg2.Error) else type(error).__name__
            if isinstance(error, psycopg2.Error) and not (code or "").startswith(_REFUSALS):
                raise
            if len(events) == 1:
                self._keep([DeadLetter(events[0].entry, "refused", f"{code}: {one_line(error)}")], done)
                return
            middle = len(events) // 2
            self._store(events[:middle], done)
            self._store(events[middle:], done)

    def _keep(self, letters: Sequence[DeadLetter], done: list[Stored]) -> None:
        if letters:
            done.append(Stored(letters=self._write(lambda cursor: _bury(cursor, letters))))

    def _report(self, letters: Sequence[DeadLetter]) -> None:
        """Count dead letters, and alert once for all of a kind."""
        for kind, counter in (("refused", metrics.DEAD_LETTERS), ("divergent", metrics.DIVERGENCES)):
            some = [letter for letter in letters if letter.kind == kind]
            if some:
                counter.inc(len(some))
                self._alert(
                    "dead_letters" if kind == "refused" else "divergences",
                    count=len(some),
                    bucket=some[0].entry.bucket,
                    stream_ids=[letter.entry.stream_id for letter in some[:_MOST_NAMED]],
                    error=some[0].error,
                    message=(some[0].entry.raw or b"")[:_MOST_SHOWN].decode(errors="replace"),
                )

    def _write(self, write: Callable[[Cursor], _T]) -> _T:
        """Write in one transaction, again when it conflicts with another one."""
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                with self._database.transaction() as cursor:
                    return write(cursor)
            except psycopg2.Error as error:
                if error.pgcode not in _CONFLICTS or attempt == _CONFLICT_ATTEMPTS - 1:
                    raise
            time.sleep(random.uniform(0, 0.1))
        raise AssertionError("the last attempt returns or raises")


def _append(cursor: Cursor, events: Sequence[AuditEvent]) -> Stored:
    """Append events to the log and to the totals. Raises `UniqueViolation` when one of them is there."""
    _copy(cursor, "sync_events", events)
    Totals(events).write(cursor)
    return Stored(len(events))


def _copy(cursor: Cursor, table: str, events: Sequence[AuditEvent]) -> None:
    rows = b"".join([COPY_BEGIN, *[event.copied for event in events], COPY_END])
    cursor.copy_expert(_COPY.format(table), BytesIO(rows), _COPY_BYTES)


def _merge(cursor: Cursor, events: Sequence[AuditEvent]) -> Stored:
    """Append to the log those events that are not there, and these to the totals; tell repeats from divergences."""
    cursor.execute(_MAKE_INCOMING)
    _copy(cursor, "incoming", events)
    cursor.execute(_INSERT_INCOMING)
    inserted = set(cursor.fetchall())
    new, known = [], []
    for event in events:
        if event.key in inserted:
            inserted.discard(event.key)  # the same key may stand twice in a batch; the first was taken
            new.append(event)
        else:
            known.append(event)
    if new:
        Totals(new).write(cursor)
    divergent = _divergent(cursor, known) if known else []
    return Stored(len(new), len(known) - len(divergent), _bury(cursor, divergent))


def _divergent(cursor: Cursor, known: Sequence[AuditEvent]) -> list[DeadLetter]:
    """Return, of events whose keys are in the log, those that say something else than the log does."""
    keys = [dict(zip(("session_id", "epoch", "version"), event.key, strict=True)) for event in known]
    cursor.execute(_SELECT_HASHES, [orjson.dumps(keys).decode()])
    hashes = {tuple(key): bytes(content_hash) for *key, content_hash in cursor.fetchall()}
    return [
        DeadLetter(
            event.entry, "divergent", "session {}, epoch {}, version {}: another event is stored".format(*event.key)
        )
        for event in known
        if hashes[event.key] != event.content_hash
    ]


def _bury(cursor: Cursor, letters: Iterable[DeadLetter]) -> tuple[DeadLetter, ...]:
    """Keep dead letters; return those that were not kept before."""
    kept = []
    for letter in letters:
        entry, error = letter.entry, letter.error.replace("\0", "")[:2000]
        raw = psycopg2.Binary(entry.raw or b"")
        cursor.execute(_INSERT_LETTER, [entry.bucket, entry.stream_id, letter.kind, error, raw])
        if cursor.rowcount:
            kept.append(letter)
    return tuple(kept)
