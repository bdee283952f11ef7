-- depends: 003_dead_letters_by_event

-- Tenants, principals and private parts. Everything from before this migration belongs to tenant `default`.
--
-- No table is rewritten, and workers of earlier releases can go on writing.

-- Session ids of tenant `default` are those that clients use. The session_id of another tenant's session is a hash of
-- the tenant and that id, and tenant_session_id is the id that clients use.
ALTER TABLE sync_events
    ADD COLUMN tenant            text NOT NULL DEFAULT 'default',
    ADD COLUMN tenant_session_id uuid,  -- null if it is session_id
    ADD COLUMN principal         text,  -- who sent the command; null without authentication, or if erased
    ADD COLUMN jti               text,  -- id of the token, if it has one
    -- Values of the commit that may hold personal data, with the salts of their digests in the message: metadata,
    -- reason, completion, principal. They can be erased; message, and all columns that are made from it, have none of
    -- them. json and not jsonb, because a digest is of the exact text.
    ADD COLUMN private           json;

ALTER TABLE sync_sessions
    ADD COLUMN tenant            text NOT NULL DEFAULT 'default',
    ADD COLUMN tenant_session_id uuid,  -- null if it is session_id
    ADD COLUMN principal         text;  -- who created it; null without authentication, or if erased

COMMENT ON COLUMN sync_sessions.metadata IS 'The newest metadata; null if they were erased.';

-- A tenant's sessions, the most recently changed first.
CREATE INDEX sync_sessions_tenant ON sync_sessions (tenant, updated_at, session_id);

-- The sessions that a principal created, the most recently changed first.
CREATE INDEX sync_sessions_principal ON sync_sessions (tenant, principal, updated_at, session_id)
    WHERE principal IS NOT NULL;

-- The commits of a principal: what erasing by principal needs.
CREATE INDEX sync_events_principal ON sync_events (tenant, principal, session_id) WHERE principal IS NOT NULL;

-- A message that could not be stored is kept with its private parts, which are its second line.
CREATE OR REPLACE FUNCTION sync_letter_key(raw bytea, OUT session_id uuid, OUT epoch bigint, OUT version bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    told json;
BEGIN
    told := split_part(convert_from(raw, 'UTF8'), E'\n', 1);
    session_id := told ->> 'session_id';
    epoch := told ->> 'epoch';
    version := told ->> 'version';
EXCEPTION WHEN others THEN
    session_id := NULL;
    epoch := NULL;
    version := NULL;
END
$$;
