"""The audit log: writes events to PostgreSQL, each exactly once, in whatever order they arrive."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from operator import itemgetter
from typing import TypeVar

import orjson
import psycopg2
import structlog

from syncapp import metrics
from syncapp.audit.copy_format import COLUMNS, COPY_BEGIN, COPY_END
from syncapp.audit.erasures import ENTRY_PREFIX, SessionErasure
from syncapp.audit.event import AuditEvent, OutboxEntry
from syncapp.audit.totals import Totals
from syncapp.domain.private_parts import split_entry
from syncapp.errors import one_line
from syncapp.postgres.database import Cursor, Database

log = structlog.get_logger(__name__)

_CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock: another attempt succeeds
_CONFLICT_ATTEMPTS = 5
_REFUSALS = ("22", "23", "54")  # SQLSTATE classes of errors in the data: values, constraints, limits
_key = itemgetter(AuditEvent._fields.index("key"))
_MAX_IDS_IN_ALERT = 10
_MAX_TEXT = 2000  # characters or bytes of an error or message
_T = TypeVar("_T")

_COPY_BYTES = 4_194_304  # a usual batch in one piece; libpq keeps a buffer of this size for the connection
_COPY = f"COPY {{}} ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT binary)"
# If some events of a batch are in the log already, the batch is first copied into this table.
_MAKE_INCOMING = "CREATE TEMPORARY TABLE incoming (LIKE sync_events INCLUDING DEFAULTS) ON COMMIT DROP"
_INSERT_INCOMING = f"""
INSERT INTO sync_events ({", ".join(COLUMNS)}) SELECT {", ".join(COLUMNS)} FROM incoming
ORDER BY session_id, epoch, version ON CONFLICT DO NOTHING RETURNING session_id::text, epoch, version
"""  # noqa: S608 made of the constants above
_SELECT_HASHES = """
SELECT session_id::text, epoch, version, stored.content_hash
FROM json_populate_recordset(NULL::sync_events, %s) JOIN sync_events AS stored USING (session_id, epoch, version)
"""
_INSERT_DEAD_LETTER = """
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
    """The result of storing entries: how many were new, how many were in the log already, and new dead letters.

    erasures: how many entries asked for an erasure, which was made.
    """

    new: int = 0
    repeated: int = 0
    dead_letters: tuple[DeadLetter, ...] = ()
    erasures: int = 0

    @property
    def completed(self) -> int:
        """How many entries need not be kept."""
        return self.new + self.repeated + self.erasures

    def __add__(self, other: Stored) -> Stored:
        dead_letters = self.dead_letters + other.dead_letters
        erasures = self.erasures + other.erasures
        return Stored(self.new + other.new, self.repeated + other.repeated, dead_letters, erasures)


class AuditLog:
    """Stores entries of outboxes. Any number of threads and processes may do so at once.

    alert(kind, **context) is called once a batch for dead letters and for divergences. Without it, they are logged.
    """

    def __init__(self, database: Database, alert: Callable[..., None] | None = None) -> None:
        self._database = database
        self._alert = alert or log.critical

    def store(self, entries: Iterable[OutboxEntry]) -> Stored:
        """Store entries in one transaction; afterwards each is in the log or a dead letter.

        Empty entries are skipped. If PostgreSQL rejects an event because of its data, the others are stored without it.
        Raises what psycopg2 raises if PostgreSQL fails. The same entries may then be stored again: those that are in
        the log already are not stored twice.
        """
        events, erasures, refused = [], [], []
        for entry in entries:
            if entry.raw is None:
                continue
            try:
                if entry.raw.startswith(ENTRY_PREFIX):
                    erasures.append((entry, SessionErasure.parse(entry.raw)))
                else:
                    events.append(AuditEvent.parse(entry))
            except Exception as error:  # noqa: BLE001 whatever is wrong with one message, the others are stored
                refused.append(DeadLetter(entry, "refused", f"{type(error).__name__}: {one_line(error)}"))
        # All transactions lock rows in the same order, so that concurrent ones wait for each other and do not deadlock.
        events.sort(key=_key)
        done: list[Stored] = []
        try:
            self._store(events, done)
            for entry, erasure in erasures:
                self._erase(entry, erasure, done)
            self._keep(refused, done)
        finally:
            # What was committed before a failure is reported now, because it will not be new next time.
            stored = sum(done, Stored())
            metrics.DRAINED.inc(stored.new)
            self._report(stored.dead_letters)
        return stored

    def _store(self, events: Sequence[AuditEvent], done: list[Stored]) -> None:
        """Store events in one transaction; if one is rejected, in halves until it is alone. Adds results to `done`."""
        if not events:
            return
        try:
            try:
                done.append(self._write(lambda cursor: _append(cursor, events)))
            except psycopg2.errors.UniqueViolation:
                done.append(self._write(lambda cursor: _merge(cursor, events)))
        except (psycopg2.Error, TypeError, ValueError) as error:  # the last two: a value that JSON cannot represent
            code = error.pgcode if isinstance(error, psycopg2.Error) else type(error).__name__
            if isinstance(error, psycopg2.Error) and not (code or "").startswith(_REFUSALS):
                raise
            if len(events) == 1:
                self._keep([DeadLetter(events[0].entry, "refused", f"{code}: {_reason(error)}")], done)
                return
            middle = len(events) // 2
            self._store(events[:middle], done)
            self._store(events[middle:], done)

    def _erase(self, entry: OutboxEntry, erasure: SessionErasure, done: list[Stored]) -> None:
        """Make an erasure, after the events that came with it are stored."""
        try:
            self._write(erasure.apply)
        except psycopg2.Error as error:
            if not (error.pgcode or "").startswith(_REFUSALS):
                raise
            self._keep([DeadLetter(entry, "refused", f"{error.pgcode}: {_reason(error)}")], done)
        else:
            done.append(Stored(erasures=1))

    def _keep(self, dead_letters: Sequence[DeadLetter], done: list[Stored]) -> None:
        if dead_letters:
            done.append(Stored(dead_letters=self._write(lambda cursor: _insert(cursor, dead_letters))))

    def _report(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Count dead letters, and send one alert for each kind."""
        for kind, counter in (("refused", metrics.DEAD_LETTERS), ("divergent", metrics.DIVERGENCES)):
            of_kind = [each for each in dead_letters if each.kind == kind]
            if of_kind:
                first = of_kind[0]
                counter.inc(len(of_kind))
                self._alert(
                    "dead_letters" if kind == "refused" else "divergences",
                    count=len(of_kind),
                    bucket=first.entry.bucket,
                    stream_ids=[each.entry.stream_id for each in of_kind[:_MAX_IDS_IN_ALERT]],
                    error=first.error,
                    message=split_entry(first.entry.raw or b"")[0][:_MAX_TEXT].decode(errors="replace"),
                )

    def _write(self, write: Callable[[Cursor], _T]) -> _T:
        """Write in one transaction; try again if it conflicts with another one."""
        for attempt in range(_CONFLICT_ATTEMPTS):
            try:
                with self._database.transaction() as cursor:
                    return write(cursor)
            except psycopg2.Error as error:
                if error.pgcode not in _CONFLICTS or attempt == _CONFLICT_ATTEMPTS - 1:
                    raise
            time.sleep(random.uniform(0, 0.1))
        raise AssertionError("the last attempt returns or raises")


def _reason(error: Exception) -> str:
    """Return what is wrong, in one line, without PostgreSQL's detail: that shows the row, with its private parts."""
    primary = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    return primary or one_line(error)


def _append(cursor: Cursor, events: Sequence[AuditEvent]) -> Stored:
    """Append events to the log and to the totals. Raises `UniqueViolation` if one of them is in the log already."""
    _copy(cursor, "sync_events", events)
    Totals(events).write(cursor)
    return Stored(len(events))


def _copy(cursor: Cursor, table: str, events: Sequence[AuditEvent]) -> None:
    rows = b"".join([COPY_BEGIN, *chain.from_iterable(event.copied for event in events), COPY_END])
    cursor.copy_expert(_COPY.format(table), BytesIO(rows), _COPY_BYTES)


def _merge(cursor: Cursor, events: Sequence[AuditEvent]) -> Stored:
    """Append the events that are not in the log yet, to the log and the totals; count repeats, keep divergences."""
    cursor.execute(_MAKE_INCOMING)
    _copy(cursor, "incoming", events)
    cursor.execute(_INSERT_INCOMING)
    inserted = set(cursor.fetchall())
    new, known = [], []
    for event in events:
        if event.key in inserted:
            inserted.discard(event.key)  # a key may occur twice in a batch; the first one was inserted
            new.append(event)
        else:
            known.append(event)
    if new:
        Totals(new).write(cursor)
    divergent = _divergent(cursor, known) if known else []
    return Stored(len(new), len(known) - len(divergent), _insert(cursor, divergent))


def _divergent(cursor: Cursor, known: Sequence[AuditEvent]) -> list[DeadLetter]:
    """Return those events whose keys are in the log with different content."""
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


def _insert(cursor: Cursor, dead_letters: Iterable[DeadLetter]) -> tuple[DeadLetter, ...]:
    """Insert dead letters; return those that were not in their table before."""
    inserted = []
    for dead_letter in dead_letters:
        entry, error = dead_letter.entry, dead_letter.error.replace("\0", "")[:_MAX_TEXT]
        raw = psycopg2.Binary(entry.raw or b"")
        cursor.execute(_INSERT_DEAD_LETTER, [entry.bucket, entry.stream_id, dead_letter.kind, error, raw])
        if cursor.rowcount:
            inserted.append(dead_letter)
    return tuple(inserted)
