-- depends: 001_initial_schema

-- A session's history and its newest event are found by the primary keys.

-- What happened in a span of time. Events come nearly in order of time, so a block range index of a few
-- pages does, and costs the drains nothing.
CREATE INDEX sync_events_at ON sync_events USING brin (at) WITH (pages_per_range = 16);

-- Whole states, from which any state of the past is told: about one event in a hundred.
CREATE INDEX sync_events_snapshots ON sync_events (session_id, epoch, version) INCLUDE (at) WHERE record IS NOT NULL;

-- Sessions, the last changed first: all, by status, by mode; those of a span of creation; those that are not over.
CREATE INDEX sync_sessions_updated_at ON sync_sessions (updated_at, session_id);

CREATE INDEX sync_sessions_status ON sync_sessions (status, updated_at, session_id);

CREATE INDEX sync_sessions_mode ON sync_sessions (sync_mode, updated_at, session_id);

CREATE INDEX sync_sessions_created_at ON sync_sessions (created_at);

CREATE INDEX sync_sessions_live ON sync_sessions (status, updated_at) WHERE status IN ('pending', 'running', 'paused');

-- A participant across sessions.
CREATE INDEX sync_participants_participant_id ON sync_participants (participant_id);

CREATE INDEX sync_dead_letters_at ON sync_dead_letters (at);
