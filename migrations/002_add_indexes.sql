-- depends: 001_initial_schema

-- A session's history and its newest event are found by the primary keys.

-- What happened in a span of time. Events come nearly in order of time, so a block range index of a few
-- pages does, and costs the drains nothing.
CREATE INDEX sync_events_at ON sync_events USING brin (at) WITH (pages_per_range = 16);

-- Sessions last changed in a span of time, and those that are not over.
CREATE INDEX sync_sessions_updated_at ON sync_sessions (updated_at);

CREATE INDEX sync_sessions_live ON sync_sessions (status, updated_at) WHERE status IN ('pending', 'running', 'paused');

-- A participant across sessions.
CREATE INDEX sync_participants_participant_id ON sync_participants (participant_id);

CREATE INDEX sync_dead_letters_at ON sync_dead_letters (at);
