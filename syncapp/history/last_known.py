"""What remains of a session in the log: its last known state, and what its scripts knew beside it.

Snapshots hold all of it. Messages do not tell of four things, which are worked out from what happened since: how many
cycles went by without a client, which warnings have fired in this cycle, whether a budget of its own has run out
already, and whose turn was last in each group. Idle time begins anew with a restore (docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

from syncapp.domain.instants import iso
from syncapp.domain.modes import MODES
from syncapp.domain.session import Session
from syncapp.domain.session_layout import RECORD_WIDTH
from syncapp.history import sql
from syncapp.history.replay import Commit
from syncapp.history.snapshots import commits_of
from syncapp.postgres.database import Cursor
from syncapp.store.restore import HiddenState, RestorePoint

_TIMEOUTS = frozenset({"cycle_timed_out", "session_expired"})


def of(cursor: Cursor, session_id: str) -> RestorePoint | None:
    """Return what remains of a session; None when the log knows nothing of it. Raises `AuditIncomplete`."""
    cursor.execute(sql.LAST, [session_id])
    row = cursor.fetchone()
    if row is None:
        return None
    epoch, version, message = row
    commits = commits_of(cursor, session_id, epoch, version)
    status = commits[-1].status
    if status == "deleted":
        commits.pop()
    record, session = commits[0].record, commits[0].whole(session_id)
    if record is None or session is None:
        raise LookupError("commits to fold begin with a whole state")
    hidden = _hidden_in(record, session)
    for commit in commits[1:]:
        before, session = session, commit.after(session)
        _follow(hidden, commit, before, session)
    return RestorePoint(epoch, version, _hash(message), status, session, hidden)


def forks(cursor: Cursor) -> set[tuple[str, int]]:
    """Return each (session id, epoch) of which another event than the stored one is kept."""
    cursor.execute(sql.FORKS)
    return set(cursor.fetchall())


def ids(cursor: Cursor, changed_ms: int) -> list[str]:
    """Return the ids of sessions that are live, or changed since and not deleted."""
    cursor.execute(sql.RECENT_IDS, [iso(changed_ms)])
    return [session_id for (session_id,) in cursor.fetchall()]


def _hidden_in(record: Mapping[str, str], session: Session) -> HiddenState:
    """Read the hidden state from the record of a whole state."""
    text = record["participants"][len(session.participants) * RECORD_WIDTH :]
    places = [int(text[at + 24 : at + 33]) for at in range(0, len(text), RECORD_WIDTH)]
    # An earlier release may have known fewer.
    unattended, warned, crossed = (int(record.get(name) or 0) for name in ("unattended", "warned", "crossed"))
    return HiddenState(unattended, warned, crossed, places)


def _follow(hidden: HiddenState, commit: Commit, before: Session, after: Session) -> None:
    """Change the hidden state as a commit did (docs/clock.md)."""
    event, definition = commit.event, after.definition
    if commit.actor == "client":
        hidden.unattended = 0
    elif after.cycle_count > before.cycle_count:
        hidden.unattended += 1
    if event["type"] == "time_warning":
        hidden.warned |= 1 << definition.warn_at_ms.index(event["threshold_ms"])
    begins = event["type"] == "session_started" or after.cycle_count > before.cycle_count
    if begins and after.status == "running":
        left_ms = after.budget_ms()
        passed = [left_ms is not None and ms >= left_ms for ms in definition.warn_at_ms]
        hidden.warned = sum(1 << place for place, is_passed in enumerate(passed) if is_passed)
        hidden.crossed = 0 if MODES[after.sync_mode].renews_budget else hidden.crossed
    elif event["type"] in _TIMEOUTS:
        hidden.crossed = 1
    elif event["type"] == "time_adjusted":
        _follow_adjustment(hidden, event, after)
    name = commit.patch.get("active_participant_id")
    if name is not None and definition.group_of:
        index = definition.index[name]
        group = definition.group_of[index]
        hidden.last_members[group] = definition.group_of[: index + 1].count(group)


def _follow_adjustment(hidden: HiddenState, event: Mapping[str, Any], after: Session) -> None:
    left_ms, definition = event["remaining_ms"], after.definition
    if left_ms > 0:
        hidden.crossed = 0
    turn, own, team = after.turn or 0, event.get("participant_id"), event.get("group_id")
    if own not in (None, *definition.participant_ids[turn : turn + 1]):
        return
    if team is not None and definition.group_index[team] != definition.group_of[turn]:
        return
    for place, threshold_ms in enumerate(definition.warn_at_ms):
        if left_ms > threshold_ms:
            hidden.warned &= ~(1 << place)


def _hash(message: str) -> str:
    # The chain's own; nothing here depends on it being hard to forge.
    return sha1(message.encode(), usedforsecurity=False).hexdigest()
