-- Replace the metadata, if it is still what the new document was made from.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 metadata version the document was made from, or '' to ask for it  12 metadata as JSON text
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · metadata_changed
-- Event  metadata_updated
-- @include _command

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local based_on, metadata = ARGV[11], ARGV[12]

local session, now = begin(keys, call)
if not session then return now end
if based_on ~= int(session.metadata_version) then return refuse('metadata_changed', now, session, call) end

set(session, 'metadata', metadata)
set(session, 'metadata_version', session.version + 1)

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'metadata_updated', {}, 'client'))
