"""The last known state of a session in the log, and the hidden state that its scripts had beside it.

Snapshots hold both, and takebacks and reopenings have one. Messages do not have four parts of the hidden state, which
are derived from the later events: how many cycles passed without a client, which warnings have fired in this cycle,
whether a budget has run out already, and whose turn was last in each group. A restore restarts the idle timeout
(docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any

from syncapp.domain.instants import iso
from syncapp.domain.modes import MODES
from syncapp.domain.session import LIVE, Session
from syncapp.domain.session_ids import log_id, qualified
from syncapp.domain.session_layout import RECORD_WIDTH, read_records
from syncapp.history import sql
from syncapp.history.replay import Commit
from syncapp.history.snapshots import commits_up_to
from syncapp.postgres.database import Cursor
from syncapp.store.restore import HiddenState, RestorePoint

_TIMEOUTS = frozenset({"cycle_timed_out", "session_expired"})
_PERIODS = frozenset({"period_started", "period_lost", "block_started"})


def restore_point(cursor: Cursor, session_id: str) -> RestorePoint | None:
    """Return the last known state of a session; None if the log has no event of it. Raises `AuditIncomplete`."""
    cursor.execute(sql.LAST, [log_id(session_id)])
    row = cursor.fetchone()
    if row is None:
        return None
    epoch, version, message = row
    commits = commits_up_to(cursor, session_id, epoch, version)
    status = commits[-1].status
    if status == "deleted":
        commits.pop()
    cursor.execute(sql.ERASED, [log_id(session_id), epoch])
    if cursor.fetchone() is not None:  # it was deleted, whatever the log knows
        status = "deleted"
    record, session = commits[0].record, commits[0].snapshot_session(session_id)
    if record is None or session is None:
        raise LookupError("the commits do not begin with a snapshot")
    hidden = _hidden_in(record, session)
    for commit in commits[1:]:
        before, session = session, commit.after(session)
        _apply(hidden, commit, before, session)
    return RestorePoint(epoch, version, _hash(message), status, session, hidden)


def forks(cursor: Cursor) -> set[tuple[str, int]]:
    """Return each (log id, epoch) that has a dead letter whose event differs from the stored one."""
    cursor.execute(sql.FORKS)
    return set(cursor.fetchall())


def recent_ids(cursor: Cursor, changed_ms: int) -> list[str]:
    """Return the ids of sessions that are live, or that have changed since an instant (ms) and are not deleted."""
    cursor.execute(sql.RECENT_IDS, [iso(changed_ms)])
    return [qualified(tenant, session_id) for tenant, session_id in cursor.fetchall()]


def _hidden_in(record: Mapping[str, str], session: Session) -> HiddenState:
    """Read the hidden state from the record of a snapshot."""
    group_records = record["participants"][len(session.participants) * RECORD_WIDTH :]
    last_members = [number for _, _, number, _ in read_records(group_records)]
    # An earlier release may not have stored all of them.
    unattended, warned, crossed = (int(record.get(name) or 0) for name in ("unattended", "warned", "crossed"))
    return HiddenState(unattended, warned, crossed, last_members)


def _apply(hidden: HiddenState, commit: Commit, before: Session, after: Session) -> None:
    """Change the hidden state in the way the commit did (docs/clock.md)."""
    event, definition = commit.event, after.definition
    if commit.actor == "client":
        hidden.unattended = 0
    elif after.cycle_count > before.cycle_count:
        hidden.unattended += 1
    if event["type"] == "time_warning":
        hidden.warned |= 1 << definition.warn_at_ms.index(event["threshold_ms"])
    is_new_cycle = event["type"] == "session_started" or after.cycle_count > before.cycle_count
    if after.status in LIVE and (is_new_cycle or _is_new_period(event, after)):
        remaining_ms = _left_ms(after)
        passed = [remaining_ms is not None and ms >= remaining_ms for ms in definition.warn_at_ms]
        hidden.warned = sum(1 << index for index, is_passed in enumerate(passed) if is_passed)
    if is_new_cycle and after.status == "running":
        hidden.crossed = 0 if MODES[after.sync_mode].renews_budget else hidden.crossed
    elif event["type"] in _TIMEOUTS:
        hidden.crossed = 1
    elif event["type"] == "time_adjusted":
        _apply_adjustment(hidden, event, after)
    name = commit.patch.get("active_participant_id")
    if name is not None and definition.group_of:
        index = definition.index[name]
        group = definition.group_of[index]
        hidden.last_members[group] = definition.group_of[: index + 1].count(group)


def _left_ms(session: Session) -> int | None:
    """Return the settled remaining time that warnings count: of the budget, or of a period or block that warns."""
    control = session.running_control()
    warns = control and control.clock.overtime and session.definition.session_rules.warns_in_periods
    return control.left_ms if control and warns else session.budget_ms()


def _is_new_period(event: Mapping[str, Any], after: Session) -> bool:
    """Return whether a period or a block that warns began, of the clock that runs or would run."""
    warns = after.definition.session_rules.warns_in_periods
    return warns and event["type"] in _PERIODS and event.get("participant_id") == after.active_participant_id


def _apply_adjustment(hidden: HiddenState, event: Mapping[str, Any], after: Session) -> None:
    definition, turn = after.definition, after.turn or 0
    participant_id, group_id = event.get("participant_id"), event.get("group_id")
    if "adjusted" in event:  # several owners
        ids = definition.group_ids or definition.participant_ids
        remaining_ms = event["adjusted"].get(ids[definition.group_of[turn] if definition.group_of else turn])
        remaining_ms = remaining_ms and remaining_ms["remaining_ms"]
    else:
        remaining_ms = event["remaining_ms"]
        if remaining_ms > 0:
            hidden.crossed = 0
        if participant_id not in (None, *definition.participant_ids[turn : turn + 1]):
            return
        if group_id is not None and definition.group_index[group_id] != definition.group_of[turn]:
            return
    left_ms = _left_ms(after) if after.clocks else remaining_ms
    for index, threshold_ms in enumerate(definition.warn_at_ms):
        if remaining_ms is not None and left_ms is not None and left_ms > threshold_ms:
            hidden.warned &= ~(1 << index)


def _hash(message: str) -> str:
    # The same hash as in the chain of messages; security does not depend on it.
    return sha1(message.encode(), usedforsecurity=False).hexdigest()
