"""States of the past, from the log's rows."""

from __future__ import annotations

from collections.abc import Sequence

from syncapp.domain.instants import iso
from syncapp.errors import SessionNotFound
from syncapp.history import sql
from syncapp.history.replay import SNAPSHOT_EVERY, Commit, PastState, fold, missing
from syncapp.postgres.database import Cursor

_ALWAYS = "infinity"


def after_version(cursor: Cursor, session_id: str, version: int, epoch: int | None) -> PastState:
    """Return a session after a version of an epoch, or of the newest. Raises `SessionNotFound`, `AuditIncomplete`."""
    cursor.execute(*((sql.NEWEST, [session_id]) if epoch is None else (sql.NEWEST_OF_EPOCH, [session_id, epoch])))
    newest = cursor.fetchone()
    if newest is None or newest[1] < version:
        raise SessionNotFound("the log has no such version of this session, or not yet")
    moment = moment_of(cursor, session_id, newest[0], version)
    if moment.commit.status == "deleted":
        raise SessionNotFound(f"version {version} deleted this session")
    return moment


def moment_of(cursor: Cursor, session_id: str, epoch: int, version: int) -> PastState:
    """Return a session after a commit that the log should have; of a deleted one, its last state.

    Raises `AuditIncomplete` when that commit, or one it stands on, is missing.
    """
    commits = commits_of(cursor, session_id, epoch, version)
    return _folded(session_id, commits, commits[-1].at_ms)


def commits_of(cursor: Cursor, session_id: str, epoch: int, version: int) -> list[Commit]:
    """Return the commits that tell the state after a version: a snapshot and what came after it.

    Raises `AuditIncomplete` when that version, or any before it, is missing.
    """
    cursor.execute(sql.SNAPSHOT_OF, [session_id, epoch, version])
    base = cursor.fetchone()
    if base is None:
        raise missing(epoch, 1)
    commits = _commits(cursor, session_id, base, version, _ALWAYS)
    for expected, commit in enumerate(commits, base[1]):
        if commit.version != expected:
            raise missing(epoch, expected)
    if commits[-1].version != version:
        raise missing(epoch, commits[-1].version + 1)
    return commits


def at_time(cursor: Cursor, session_id: str, at_ms: int) -> PastState:
    """Return a session as it was at an instant. Raises `SessionNotFound`, `AuditIncomplete`.

    A restored session's clock may have gone on from before the restore: that commit itself counts from its epoch.
    """
    before = 2**63 - 1
    while True:
        cursor.execute(sql.SNAPSHOT_AT, [session_id, before, iso(at_ms)])
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
    return _folded(session_id, commits, at_ms)


def _commits(cursor: Cursor, session_id: str, base: tuple[int, int], last: int, until: str | None) -> list[Commit]:
    cursor.execute(sql.COMMITS, [session_id, *base, last, until])
    return [Commit(*row) for row in cursor.fetchall()]


def _folded(session_id: str, commits: Sequence[Commit], at_ms: int) -> PastState:
    alive = commits[:-1] if commits[-1].status == "deleted" else commits
    return PastState(fold(session_id, alive), commits[-1], at_ms)


def newest(cursor: Cursor, session_id: str) -> tuple[int, int]:
    """Return the (epoch, version) of a session's newest event; it has one."""
    cursor.execute(sql.NEWEST, [session_id])
    (order,) = cursor.fetchall()
    return order[0], order[1]
