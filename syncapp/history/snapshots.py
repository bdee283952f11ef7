"""Earlier states of sessions, from the log's snapshots and the commits after them."""

from __future__ import annotations

from syncapp.domain.instants import iso
from syncapp.domain.session_ids import log_id
from syncapp.errors import SessionNotFound
from syncapp.history import sql
from syncapp.history.replay import SNAPSHOT_EVERY, Commit, PastState, fold, missing
from syncapp.postgres.database import Cursor

_NO_LIMIT = "infinity"


def state_after_version(cursor: Cursor, session_id: str, version: int, epoch: int | None) -> PastState:
    """Return a session after a version of an epoch, by default the newest epoch.

    Raises `SessionNotFound`, `AuditIncomplete`.
    """
    cursor.execute(
        *((sql.NEWEST, [log_id(session_id)]) if epoch is None else (sql.NEWEST_OF_EPOCH, [log_id(session_id), epoch]))
    )
    newest = cursor.fetchone()
    if newest is None or newest[1] < version:
        raise SessionNotFound("this version of the session is not in the log, or not yet")
    commits = commits_up_to(cursor, session_id, newest[0], version)
    if commits[-1].status == "deleted":
        raise SessionNotFound(f"version {version} deleted this session")
    return PastState(fold(session_id, commits), commits[-1], commits[-1].at_ms)


def commits_up_to(cursor: Cursor, session_id: str, epoch: int, version: int) -> list[Commit]:
    """Return the commits that make the state after a version: one with a snapshot, and those after it.

    Raises `AuditIncomplete` if one of them is missing.
    """
    cursor.execute(sql.SNAPSHOT_OF, [log_id(session_id), epoch, version])
    base = cursor.fetchone()
    if base is None:
        raise missing(epoch, 1)
    commits = _commits(cursor, session_id, base, version, _NO_LIMIT)
    for expected, commit in enumerate(commits, base[1]):
        if commit.version != expected:
            raise missing(epoch, expected)
    if commits[-1].version != version:
        raise missing(epoch, commits[-1].version + 1)
    return commits


def state_at(cursor: Cursor, session_id: str, at_ms: int) -> PastState:
    """Return a session as it was at an instant. Raises `SessionNotFound`, `AuditIncomplete`.

    The commit of a restore may carry an instant before the restore, so that the clock continues from there. It counts
    only from its epoch, which is the instant of the restore.
    """
    before = 2**63 - 1
    while True:
        cursor.execute(sql.SNAPSHOT_AT, [log_id(session_id), before, iso(at_ms)])
        base = cursor.fetchone()
        if base is None:
            raise SessionNotFound("the log has no state of this session at that time")
        commits = _commits(cursor, session_id, base, base[1] + SNAPSHOT_EVERY, iso(at_ms))
        last = commits[-1]
        if last.event["type"] != "session_restored" or last.epoch <= at_ms:
            break
        before = last.epoch
    if last.status == "deleted":
        raise SessionNotFound(f"this session was deleted at {iso(last.at_ms)}")
    return PastState(fold(session_id, commits), last, at_ms)


def _commits(cursor: Cursor, session_id: str, base: tuple[int, int], last: int, until: str | None) -> list[Commit]:
    cursor.execute(sql.COMMITS, [log_id(session_id), *base, last, until])
    return [Commit.of_row(row) for row in cursor.fetchall()]


def newest(cursor: Cursor, session_id: str) -> tuple[int, int]:
    """Return the (epoch, version) of the newest event of a session that has events."""
    cursor.execute(sql.NEWEST, [log_id(session_id)])
    (order,) = cursor.fetchall()
    return order[0], order[1]
