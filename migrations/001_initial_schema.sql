-- The audit trail: every commit of every session, and totals for analytics. Redis is the primary store: commands
-- are answered from there, never from these tables.
--
-- Events arrive at least once and in any order, from several drains at the same time. So an event has a key,
-- (session_id, epoch, version), and the contents of every table below do not depend on the order of arrival.
-- There are no foreign keys, so an insert into the log never waits for another table, or fails because of it.

CREATE TYPE sync_mode AS ENUM ('per_participant', 'per_cycle', 'per_group', 'global', 'count_up');

CREATE TYPE sync_status AS ENUM ('pending', 'running', 'paused', 'completed', 'expired', 'cancelled', 'deleted');

-- One row per session: its latest known state, by (epoch, version).
CREATE TABLE sync_sessions (
    session_id        uuid PRIMARY KEY,
    epoch             bigint NOT NULL,       -- instant (ms) at which it was created or restored
    version           bigint NOT NULL,       -- newest known commit
    sync_mode         sync_mode NOT NULL,
    status            sync_status NOT NULL,  -- after that commit
    cycle_count       bigint NOT NULL,       -- ended cycles, after that commit
    updated_at        timestamptz NOT NULL,  -- when that commit took effect
    content_hash      bytea NOT NULL,        -- of that commit's row, to detect a change of the last row
    -- The columns below are null until an event that sets them has arrived.
    participant_count integer,
    total_time_ms     bigint,
    created_at        timestamptz,
    started_at        timestamptz,
    completed_at      timestamptz,           -- completed, expired or cancelled
    deleted_at        timestamptz,
    metadata          jsonb,
    metadata_version  bigint                 -- version of the commit that set the metadata
);

COMMENT ON TABLE sync_sessions IS 'One row a session: its latest known state; the newest (epoch, version) wins.';

-- The log: one row per commit, append-only (a trigger refuses changes).
--
-- `message` is what the primary store committed, byte for byte, and all other columns are made from it. Its member
-- `previous` is the SHA-1 of the session's message before it. The store makes this chain, because it knows the order
-- of commits, so the chain does not depend on the order of arrival. `flask audit verify` checks it.
--
-- Partitioned by the month of the epoch, so that the primary key is exactly the event's key: a second event with
-- the same key is impossible, whatever its instant. All events of an epoch are in the partition of the month in
-- which the session was created or restored.
CREATE TABLE sync_events (
    session_id          uuid NOT NULL,
    epoch               bigint NOT NULL,
    version             bigint NOT NULL,       -- number of the commit within the epoch, from 1
    event_type          text NOT NULL,
    at                  timestamptz NOT NULL,  -- when it took effect, exact to the millisecond; for a timeout, the deadline
    sync_mode           sync_mode NOT NULL,
    status              sync_status NOT NULL,  -- after the commit
    cycle_count         bigint NOT NULL,       -- ended cycles, after the commit
    participant_id      text,                  -- participant that the event is about
    next_participant_id text,
    group_id            text,
    remaining_ms        bigint,                -- remaining budget, if the event has it
    elapsed_ms          bigint,                -- charged by this commit
    actor               text NOT NULL,         -- client, or system for commits that no client requested
    request_id          text,
    metadata            jsonb,                 -- metadata, if this commit set it
    patch               jsonb NOT NULL,        -- changes, with the names of the primary store: `updated_ms` is `updated_at` in a state
    snapshot            jsonb,                 -- whole state document: in the first, the last and every 100th commit
    record              jsonb,                 -- the same with the names of the primary store, for a restore
    message             json NOT NULL,         -- as committed, byte for byte; message->'event' is what clients received
    previous_hash       bytea,                 -- SHA-1 of the session's previous message, from message
    content_hash        bytea NOT NULL,        -- SHA-256 of message, to distinguish a repeat from a divergence
    stored_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, epoch, version)
) PARTITION BY RANGE (epoch);

COMMENT ON TABLE sync_events IS 'The log: one row a commit, append-only, partitioned by the month of the epoch (UTC).';

-- Refuses changes of stored rows. Whole partitions may be dropped; sync_make_partitions moves rows between them.
CREATE FUNCTION sync_refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF current_setting('syncapp.allow_changes', true) = 'on' THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER sync_events_append_only BEFORE UPDATE OR DELETE ON sync_events
FOR EACH ROW EXECUTE FUNCTION sync_refuse_change();

CREATE TRIGGER sync_events_no_truncate BEFORE TRUNCATE ON sync_events
FOR EACH STATEMENT EXECUTE FUNCTION sync_refuse_change();

-- Takes the rows of months without a partition, so that no event is refused for lack of one.
CREATE TABLE sync_events_default PARTITION OF sync_events DEFAULT;

-- Totals of each participant, for analytics. A row with an earlier epoch than its session is of a participant
-- that is not part of the current epoch.
CREATE TABLE sync_participants (
    session_id        uuid NOT NULL,
    participant_id    text NOT NULL,
    epoch             bigint NOT NULL,
    version           bigint NOT NULL,   -- newest commit that changed this participant
    time_used_ms      bigint NOT NULL,   -- settled, after that commit
    time_remaining_ms bigint,            -- null in modes whose participants have no budget of their own
    cycle_count       bigint NOT NULL,
    has_expired       boolean NOT NULL,
    participant_index integer,           -- position in the rotation
    total_time_ms     bigint,            -- granted budget; null until a snapshot has arrived
    first_active_at   timestamptz,       -- first and last commit after which the participant was active,
    last_active_at    timestamptz,       -- over all epochs
    PRIMARY KEY (session_id, participant_id)
);

COMMENT ON TABLE sync_participants IS 'Totals per participant, as of the newest commit that touched it.';

-- Messages that could not be stored, byte for byte. Read one with convert_from(raw, 'UTF8').
CREATE TABLE sync_dead_letters (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket       integer NOT NULL,  -- bucket and stream entry that the message was read from
    stream_id    text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('refused', 'divergent')),
    error        text NOT NULL,
    raw          bytea NOT NULL,
    content_hash bytea NOT NULL GENERATED ALWAYS AS (sha256(raw)) STORED,
    at           timestamptz NOT NULL DEFAULT now(),
    redriven_at  timestamptz,       -- when it was stored after all; null until then
    UNIQUE (bucket, stream_id, content_hash)
);

COMMENT ON TABLE sync_dead_letters IS
    'Messages that could not be stored: refused for what they are, or divergent from the event under their key.';

-- Makes the partitions of this month and of the given number of months after it. Returns the names of those made.
--
-- Moves the rows of such a month out of the default partition. Takes short exclusive locks on the default
-- partition, and gives up after 5 s, so that it does not delay drains while it waits for a long query.
CREATE FUNCTION sync_make_partitions(months_ahead integer) RETURNS SETOF text
LANGUAGE plpgsql
SET TimeZone = 'UTC'
SET lock_timeout = '5s'
AS $$
DECLARE
    was_allowed text := current_setting('syncapp.allow_changes', true);
    month timestamptz := date_trunc('month', now());
    low bigint;
    high bigint;
    partition_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('sync_make_partitions'));
    -- For rows that leave the default partition. A SET clause of the function would need a superuser.
    PERFORM set_config('syncapp.allow_changes', 'on', true);
    FOR _ IN 0..months_ahead LOOP
        partition_name := to_char(month, '"sync_events_"YYYY_MM');
        low := extract(epoch FROM month) * 1000;
        month := month + interval '1 month';
        high := extract(epoch FROM month) * 1000;
        CONTINUE WHEN to_regclass(partition_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE sync_events INCLUDING ALL)', partition_name);
        LOCK TABLE sync_events_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH moved AS (DELETE FROM sync_events_default WHERE epoch >= %s AND epoch < %s RETURNING *)'
            ' INSERT INTO %I SELECT * FROM moved', low, high, partition_name);
        EXECUTE format('ALTER TABLE sync_events ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
            partition_name, low, high);
        RETURN NEXT partition_name;
    END LOOP;
    PERFORM set_config('syncapp.allow_changes', coalesce(was_allowed, ''), true);
END
$$;

COMMENT ON FUNCTION sync_make_partitions IS
    'Makes the monthly partitions of sync_events from this month on; run by db upgrade and daily by the worker.';

-- Months that retention has dropped, so that `flask audit verify` expects no rows of them.
CREATE TABLE sync_dropped_partitions (
    name       text NOT NULL,
    from_epoch bigint NOT NULL,  -- ms, inclusive
    to_epoch   bigint NOT NULL,  -- ms, exclusive
    dropped_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE sync_dropped_partitions IS 'Months of sync_events that flask audit retention has dropped.';

-- Drops the partitions of months that ended at least the given number of months ago. Returns their names.
--
-- A partition is kept while any of its sessions has an event that is more recent than that.
CREATE FUNCTION sync_drop_partitions(months_kept integer) RETURNS SETOF text
LANGUAGE plpgsql
SET TimeZone = 'UTC'
SET lock_timeout = '5s'
AS $$
DECLARE
    kept_from timestamptz := now() - make_interval(months => months_kept);
    month timestamptz;
    is_in_use boolean;
    partition_name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('sync_make_partitions'));
    FOR partition_name IN
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'sync_events'::regclass AND relname ~ '^sync_events_[0-9]{4}_[0-9]{2}$' ORDER BY relname
    LOOP
        month := to_timestamp(right(partition_name, 7), 'YYYY_MM');
        CONTINUE WHEN month + interval '1 month' > kept_from;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE at >= %L)', partition_name, kept_from) INTO is_in_use;
        CONTINUE WHEN is_in_use;
        INSERT INTO sync_dropped_partitions (name, from_epoch, to_epoch)
        VALUES (partition_name, extract(epoch FROM month) * 1000,
            extract(epoch FROM month + interval '1 month') * 1000);
        EXECUTE format('DROP TABLE %I', partition_name);
        RETURN NEXT partition_name;
    END LOOP;
END
$$;

COMMENT ON FUNCTION sync_drop_partitions IS 'Drops months of sync_events that are old and no longer written to.';
