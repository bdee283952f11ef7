-- depends: 004_tenants_and_private_parts

-- Erasures of private parts. The functions here are the only way to change or delete rows of the log, and belong to the
-- owner of the tables: the role of the processes needs no right to do so.

-- What was erased. It does not tell whose data it was.
CREATE TABLE sync_erasures (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant           text NOT NULL,
    session_id       uuid,             -- the session; null for an erasure by principal
    before           bigint NOT NULL,  -- instant (ms): epochs of the session, or commits of the principal, up to it
    principal_salt   bytea,            -- for an erasure by principal: a salt, and the SHA-256 of it and the principal
    principal_hash   bytea,
    is_whole         boolean NOT NULL DEFAULT false,  -- whether all rows of the session were deleted
    events           bigint NOT NULL DEFAULT 0,       -- rows of sync_events that were changed or deleted
    erased_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (session_id, before)
);

COMMENT ON TABLE sync_erasures IS 'What was erased from the log, and when; repeated for a day, for events that come later.';

-- Raises an error if this role may not write to the log.
CREATE FUNCTION sync_check_writer() RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'sync_events', 'INSERT') THEN
        RAISE EXCEPTION 'role % may not write to the log', session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Returns private parts without some of them; null if none are left. The texts of the others stay as they are.
CREATE FUNCTION sync_without_parts(private json, names text[]) RETURNS json
LANGUAGE sql
AS $$ SELECT json_object_agg(key, value) FROM json_each(private) WHERE key <> ALL (names) $$;

-- Returns the first line of a dead letter: the message without its private parts.
CREATE FUNCTION sync_first_line(raw bytea) RETURNS bytea
LANGUAGE sql
AS $$ SELECT CASE position('\x0a'::bytea IN raw) WHEN 0 THEN raw ELSE substring(raw FROM 1 FOR position('\x0a'::bytea IN raw) - 1) END $$;

-- Whether a hashed message has metadata, a reason, a result or a completion in clear: an earlier release made it.
CREATE FUNCTION sync_is_clear(message json) RETURNS boolean
LANGUAGE sql
AS $$
    SELECT coalesce(message -> 'patch' ->> 'metadata', '{}') <> '{}' OR message -> 'completion' IS NOT NULL
        OR coalesce(message -> 'snapshot' ->> 25, '{}') <> '{}'
        OR message ->> 'actor' = 'client' AND coalesce(message #> '{event,reason}', message #> '{event,result}') IS NOT NULL
$$;

-- Erases the private parts of a session, in its epochs up to an instant (ms). Returns the number of changed rows.
--
-- If messages of an earlier release have values in clear, blanking them would break the chain: then all rows of the
-- session are deleted, up to that instant.
CREATE FUNCTION sync_erase_session(erased_tenant text, erased_id uuid, until bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $$
DECLARE
    was_allowed text := current_setting('syncapp.allow_changes', true);
    is_all boolean;
    letters bigint;
    changed bigint;
BEGIN
    PERFORM sync_check_writer();
    PERFORM set_config('syncapp.allow_changes', 'on', true);
    is_all := EXISTS (SELECT FROM sync_erasures WHERE session_id = erased_id AND before >= until AND is_whole)
        OR EXISTS (SELECT FROM sync_events WHERE session_id = erased_id AND epoch <= until AND sync_is_clear(message))
        OR EXISTS (
            SELECT FROM sync_dead_letters WHERE session_id = erased_id AND epoch <= until
                AND sync_is_clear(convert_from(sync_first_line(raw), 'UTF8')::json)
        );
    IF is_all THEN
        DELETE FROM sync_events WHERE session_id = erased_id AND epoch <= until;
        GET DIAGNOSTICS changed = ROW_COUNT;
        DELETE FROM sync_sessions WHERE session_id = erased_id AND epoch <= until;
        DELETE FROM sync_participants WHERE session_id = erased_id AND epoch <= until;
        DELETE FROM sync_dead_letters WHERE session_id = erased_id AND epoch <= until;
        GET DIAGNOSTICS letters = ROW_COUNT;
    ELSE
        UPDATE sync_events SET private = NULL, principal = NULL
        WHERE session_id = erased_id AND epoch <= until AND (private IS NOT NULL OR principal IS NOT NULL);
        GET DIAGNOSTICS changed = ROW_COUNT;
        UPDATE sync_sessions SET metadata = CASE metadata WHEN '{}' THEN metadata END, principal = NULL
        WHERE session_id = erased_id AND epoch <= until AND (metadata <> '{}' OR principal IS NOT NULL);
        UPDATE sync_dead_letters SET raw = sync_first_line(raw), error = split_part(error, 'DETAIL:', 1)
        WHERE session_id = erased_id AND epoch <= until AND position('\x0a'::bytea IN raw) > 0;
        GET DIAGNOSTICS letters = ROW_COUNT;
    END IF;
    -- Messages that cannot be read, but name the session.
    DELETE FROM sync_dead_letters WHERE session_id IS NULL AND position('"erase":' IN encode(raw, 'escape')) = 0
        AND position(erased_id::text IN encode(raw, 'escape')) > 0;
    PERFORM set_config('syncapp.allow_changes', coalesce(was_allowed, ''), true);
    INSERT INTO sync_erasures AS old (tenant, session_id, before, is_whole, events)
    VALUES (erased_tenant, erased_id, until, is_all, changed + letters)
    ON CONFLICT (session_id, before) DO UPDATE
    SET is_whole = old.is_whole OR excluded.is_whole, events = old.events + excluded.events;
    RETURN changed + letters;
END
$$;

-- Erases a principal of a tenant, and the reasons, results and completions that it gave, in commits up to an instant
-- (ms). Returns the number of changed rows. Metadata stay.
CREATE FUNCTION sync_blank_principal(erased_tenant text, erased_principal text, until bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $$
DECLARE
    was_allowed text := current_setting('syncapp.allow_changes', true);
    until_at timestamptz := to_timestamp(until / 1000.0);
    completed uuid[];
    changed bigint;
    letters bigint;
BEGIN
    PERFORM sync_check_writer();
    PERFORM set_config('syncapp.allow_changes', 'on', true);
    completed := array(
        SELECT DISTINCT session_id FROM sync_events
        WHERE tenant = erased_tenant AND principal = erased_principal AND at <= until_at
            AND event_type = 'session_completed' AND message #> '{private,completion}' IS NOT NULL
    );
    -- Later commits of a completed session have its completion, too.
    UPDATE sync_events SET private = sync_without_parts(private, '{completion}')
    WHERE session_id = ANY (completed) AND private -> 'completion' IS NOT NULL AND at <= until_at;
    UPDATE sync_events SET private = sync_without_parts(private, '{principal,reason,completion}'), principal = NULL
    WHERE tenant = erased_tenant AND principal = erased_principal AND at <= until_at;
    GET DIAGNOSTICS changed = ROW_COUNT;
    UPDATE sync_sessions SET principal = NULL
    WHERE tenant = erased_tenant AND principal = erased_principal AND created_at <= until_at;
    UPDATE sync_dead_letters SET raw = sync_first_line(raw), error = split_part(error, 'DETAIL:', 1)
    WHERE position('\x0a'::bytea IN raw) > 0
        AND position(convert_to(to_json(erased_principal)::text, 'UTF8') IN raw) > 0;
    GET DIAGNOSTICS letters = ROW_COUNT;
    PERFORM set_config('syncapp.allow_changes', coalesce(was_allowed, ''), true);
    RETURN changed + letters;
END
$$;

-- The same, and records it.
CREATE FUNCTION sync_erase_principal(erased_tenant text, erased_principal text, until bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $$
DECLARE
    salt bytea := uuid_send(gen_random_uuid());
    changed bigint := sync_blank_principal(erased_tenant, erased_principal, until);
BEGIN
    INSERT INTO sync_erasures (tenant, before, principal_salt, principal_hash, events)
    VALUES (erased_tenant, until, salt, sha256(salt || convert_to(erased_principal, 'UTF8')), changed);
    RETURN changed;
END
$$;

-- Repeats the erasures of the last day, for events that were stored after them. Returns the number of changed rows.
CREATE FUNCTION sync_repeat_erasures() RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $$
DECLARE
    erasure sync_erasures;
    found_principal text;
    changed bigint := 0;
BEGIN
    PERFORM sync_check_writer();
    FOR erasure IN SELECT * FROM sync_erasures WHERE erased_at > now() - interval '1 day' ORDER BY id LOOP
        IF erasure.session_id IS NOT NULL THEN
            changed := changed + sync_erase_session(erasure.tenant, erasure.session_id, erasure.before);
        ELSE
            FOR found_principal IN
                SELECT DISTINCT principal FROM sync_events
                WHERE tenant = erasure.tenant AND principal IS NOT NULL AND stored_at > erasure.erased_at - interval '1 hour'
                    AND sha256(erasure.principal_salt || convert_to(principal, 'UTF8')) = erasure.principal_hash
            LOOP
                changed := changed + sync_blank_principal(erasure.tenant, found_principal, erasure.before);
            END LOOP;
        END IF;
    END LOOP;
    RETURN changed;
END
$$;

-- The functions that act for the owner must not find tables of the caller's.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sync_erase_session(text, uuid, bigint)', 'sync_blank_principal(text, text, bigint)',
        'sync_erase_principal(text, text, bigint)', 'sync_repeat_erasures()']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;

CREATE INDEX sync_erasures_at ON sync_erasures (erased_at);
