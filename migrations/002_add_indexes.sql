-- depends: 001_initial_schema

-- The primary keys find a session's history and its newest event.

-- Events of a time span. Events arrive nearly in the order of time, so a block range index of a few pages is
-- enough, and does not slow drains down.
CREATE INDEX sync_events_at ON sync_events USING brin (at) WITH (pages_per_range = 16);

-- Snapshots, from which every earlier state is made: about 1 % of the events.
CREATE INDEX sync_events_snapshots ON sync_events (session_id, epoch, version) INCLUDE (at) WHERE record IS NOT NULL;

-- Sessions, the most recently changed first: all, by status, by mode; by time of creation; those that have not ended.
CREATE INDEX sync_sessions_updated_at ON sync_sessions (updated_at, session_id);

CREATE INDEX sync_sessions_status ON sync_sessions (status, updated_at, session_id);

CREATE INDEX sync_sessions_mode ON sync_sessions (sync_mode, updated_at, session_id);

CREATE INDEX sync_sessions_created_at ON sync_sessions (created_at);

CREATE INDEX sync_sessions_live ON sync_sessions (status, updated_at) WHERE status IN ('pending', 'running', 'paused');

-- The totals of a participant in all sessions.
CREATE INDEX sync_participants_participant_id ON sync_participants (participant_id);

CREATE INDEX sync_dead_letters_at ON sync_dead_letters (at);
