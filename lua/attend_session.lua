#!lua flags=allow-oom
-- Postpone the idle end of a watched session. This is not a commit: the version stays, and nothing is published.
-- An idle end that is already due is left alone, and so is a session whose idle time does not count.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
-- Replies  ok · not_found
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
local now = server_now_ms()
local session = load_session(keys.session)
if not session then return refuse('not_found', now, nil, call) end

local idle_ms = now + session.idle_timeout_ms
local counts = LIVE[session.status] and counts_idle(session, timeout_at(session))
if counts and session.idle_ms > now and session.idle_ms < idle_ms then
  check_rights(keys)
  set(session, 'idle_ms', idle_ms)
  plan(session, now)
  write_fields(session)
  schedule(session, keys, call, now)
end

return reply('ok', now, {}, call)
