"""The SQL statements of the history; bench/explain.py prints PostgreSQL's plan for each."""

from __future__ import annotations

EVENT_COLUMNS = (
    "epoch", "version", "event_type", "at_ms", "status", "cycle_count", "participant_id", "next_participant_id",
    "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id", "principal", "jti", "event", "patch", "idle_ms",
    "completion", "private", "digests",
)  # fmt: skip
SESSION_COLUMNS = (
    "session_id", "sync_mode", "status", "epoch", "version", "cycle_count", "participant_count", "total_time_ms",
    "created_at", "started_at", "completed_at", "deleted_at", "updated_at", "metadata", "principal",
)  # fmt: skip
PUBLIC_ID = "coalesce(tenant_session_id, session_id)::text"
_LIVE = "status IN ('pending', 'running', 'paused')"
_SESSION_EXPRESSIONS = {
    "session_id": PUBLIC_ID,
    "completed_at": f"CASE WHEN {_LIVE} THEN NULL ELSE completed_at END",  # a session may have been reopened
}
AT_MS = "(extract(epoch FROM at) * 1000)::bigint"
EVENT = "message -> 'event'"
IDLE_MS = "(message ->> 'idle_ms')::bigint"
COMPLETION = "message -> 'completion'"
DIGESTS = "message -> 'private'"
EXPRESSIONS = {"at_ms": AT_MS, "event": EVENT, "idle_ms": IDLE_MS, "completion": COMPLETION, "digests": DIGESTS}
"""The expressions for those of EVENT_COLUMNS that are not columns of the table."""
_COMMIT = (
    f"epoch, version, {AT_MS}, status, cycle_count, actor, {EVENT}, message -> 'patch', {IDLE_MS}, {COMPLETION},"
    " private, record"
)

EXISTS = "SELECT 1 FROM sync_events WHERE session_id = %s LIMIT 1"
EVENTS = (
    "SELECT {columns} FROM sync_events WHERE session_id = %(session_id)s AND epoch >= %(epoch)s"
    " AND (epoch, version) > (%(epoch)s, %(version)s){filters} ORDER BY epoch, version LIMIT %(limit)s"
)
EVENTS_BACKWARDS = (
    "SELECT {columns} FROM sync_events WHERE session_id = %(session_id)s AND epoch <= %(epoch)s"
    " AND (epoch, version) < (%(epoch)s, %(version)s){filters} ORDER BY epoch DESC, version DESC LIMIT %(limit)s"
)
NEWEST = "SELECT epoch, version FROM sync_events WHERE session_id = %s ORDER BY epoch DESC, version DESC LIMIT 1"
NEWEST_OF_EPOCH = (
    "SELECT epoch, version FROM sync_events WHERE session_id = %s AND epoch = %s ORDER BY version DESC LIMIT 1"
)
# Rows with snapshots, about 1 % of the log, have an index of their own.
SNAPSHOT_AT = (
    "SELECT epoch, version FROM sync_events WHERE session_id = %s AND record IS NOT NULL AND epoch < %s AND at <= %s"
    " ORDER BY epoch DESC, version DESC LIMIT 1"
)
SNAPSHOT_OF = (
    "SELECT epoch, version FROM sync_events WHERE session_id = %s AND record IS NOT NULL AND epoch = %s"
    " AND version <= %s ORDER BY version DESC LIMIT 1"
)
COMMITS = (
    f"SELECT {_COMMIT} FROM sync_events"  # noqa: S608 made of the constants above
    " WHERE session_id = %s AND epoch = %s AND version BETWEEN %s AND %s"
    " AND at <= %s ORDER BY version"
)
TIMEOUTS_BETWEEN = """
SELECT session_id::text, epoch, version, event_type, (extract(epoch FROM at) * 1000)::bigint, participant_id
FROM sync_events WHERE at > %s AND at <= %s AND event_type IN (
    'participant_expired', 'group_expired', 'cycle_timed_out', 'session_expired'
) ORDER BY at, session_id, epoch, version
"""
SESSIONS = (
    f"SELECT {', '.join(_SESSION_EXPRESSIONS.get(name, name) for name in SESSION_COLUMNS)}, session_id::text"  # noqa: S608 as above
    " FROM sync_sessions{filters} ORDER BY updated_at DESC, session_id DESC LIMIT %(limit)s"
)
LIFE = (
    "SELECT coalesce(max(epoch) FILTER (WHERE event_type = 'session_created'), min(epoch)) FROM sync_events"
    " WHERE session_id = %s AND record IS NOT NULL"
)
# Without what was taken back. A commit that charges names whose turn it is, but an adjustment names whose budget it is.
CYCLES = """
WITH commits AS (
    SELECT event_type, participant_id, elapsed_ms, cycle_count, epoch,
        CASE WHEN event_type = 'cycles_taken_back' THEN cycle_count
            ELSE lag(cycle_count, 1, cycle_count) OVER commits END AS cycle,
        CASE WHEN event_type = 'session_started' THEN participant_id
            ELSE lag(next_participant_id) OVER commits END AS turn_of,
        min(cycle_count) FILTER (WHERE event_type = 'cycles_taken_back') OVER (
            commits ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS taken_back_to
    FROM sync_events WHERE session_id = %s AND epoch >= %s WINDOW commits AS (ORDER BY epoch, version)
), cycles AS (
    SELECT cycle, coalesce(
            max(participant_id) FILTER (WHERE elapsed_ms IS NOT NULL AND event_type <> 'time_adjusted'), max(turn_of)
        ) AS participant_id,
        coalesce(sum(elapsed_ms), 0) AS ms, bool_or(cycle_count > cycle) AS ended
    FROM commits WHERE taken_back_to IS NULL OR cycle < taken_back_to GROUP BY cycle
)
SELECT participant_id, count(*) FILTER (WHERE ended), sum(ms)::bigint, round(avg(ms) FILTER (WHERE ended))::bigint,
    (max(ms) FILTER (WHERE ended))::bigint, coalesce(sum(ms) FILTER (WHERE NOT ended), 0)::bigint
FROM cycles GROUP BY GROUPING SETS ((participant_id), ())
ORDER BY grouping(participant_id) DESC
"""
ROSTER = (
    "SELECT record ->> 'definition' FROM sync_events WHERE session_id = %s AND record IS NOT NULL AND epoch >= %s"
    " ORDER BY epoch DESC, version DESC LIMIT 1"
)

# For recovery.
LAST = (
    "SELECT epoch, version, message::text FROM sync_events WHERE session_id = %s"
    " ORDER BY epoch DESC, version DESC LIMIT 1"
)
ERASED = "SELECT FROM sync_erasures WHERE session_id = %s AND before >= %s LIMIT 1"
FORKS = (
    "SELECT DISTINCT session_id::text, epoch FROM sync_dead_letters"
    " WHERE kind = 'divergent' AND redriven_at IS NULL AND session_id IS NOT NULL"
)
RECENT_IDS = (
    f"SELECT tenant, {PUBLIC_ID} FROM sync_sessions"  # noqa: S608 as above
    f" WHERE {_LIVE} OR status <> 'deleted' AND updated_at > %s"
)
