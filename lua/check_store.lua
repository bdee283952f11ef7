-- Check that the server accepts everything that commits write; raises the error of the first refusal.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record: written, for a second
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
-- Replies  ok
-- Event  none
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

check_call(keys, call)
assert(keys.idempotency, 'a key is missing')
check_all_rights(keys)
check_reading_rights(keys)
try_write(keys)

-- In place of a state: what the worker may not do.
return reply('ok', server_now_ms(), missing_audit_rights(keys), call)
