-- depends: 002_add_indexes

-- The event of a dead letter, and the row that was stored instead. `flask audit verify` explains forks with them.
ALTER TABLE sync_dead_letters
    ADD COLUMN session_id  uuid,    -- the event's key, if the message has it
    ADD COLUMN epoch       bigint,
    ADD COLUMN version     bigint,
    ADD COLUMN stored_hash bytea;   -- for a divergent one, content_hash of the row that has its key

CREATE INDEX sync_dead_letters_event ON sync_dead_letters (session_id, epoch, version);

-- Returns the key in a message; nulls if it has none.
CREATE FUNCTION sync_letter_key(raw bytea, OUT session_id uuid, OUT epoch bigint, OUT version bigint)
LANGUAGE plpgsql
AS $$
DECLARE
    told json;
BEGIN
    told := convert_from(raw, 'UTF8');
    session_id := told ->> 'session_id';
    epoch := told ->> 'epoch';
    version := told ->> 'version';
EXCEPTION WHEN others THEN
    session_id := NULL;
    epoch := NULL;
    version := NULL;
END
$$;

-- Sets these columns on every insert of a dead letter.
CREATE FUNCTION sync_note_letter() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    SELECT * INTO NEW.session_id, NEW.epoch, NEW.version FROM sync_letter_key(NEW.raw);
    IF NEW.kind = 'divergent' THEN
        NEW.stored_hash := (
            SELECT content_hash FROM sync_events AS stored
            WHERE stored.session_id = NEW.session_id AND stored.epoch = NEW.epoch AND stored.version = NEW.version
        );
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER sync_dead_letters_note BEFORE INSERT ON sync_dead_letters
FOR EACH ROW EXECUTE FUNCTION sync_note_letter();

-- Dead letters from before this migration.
UPDATE sync_dead_letters AS letter SET (session_id, epoch, version) = (SELECT * FROM sync_letter_key(letter.raw));

UPDATE sync_dead_letters AS letter SET stored_hash = stored.content_hash FROM sync_events AS stored
WHERE letter.kind = 'divergent'
    AND (stored.session_id, stored.epoch, stored.version) = (letter.session_id, letter.epoch, letter.version);
