-- Return what a list shows of a session, settled: what was due has happened.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
-- Replies  ok · not_found · busy
-- Event  what was due: time_warning, participant_expired, group_expired, cycle_timed_out, session_expired,
--        session_cancelled, session_paused
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

local session, now = begin(keys, call)
if not session then return now end

-- In place of a state: what syncapp/domain/summary.py reads.
return reply('ok', now, {
  session.scalars, session.metadata, completion_word(session), active_id(session) or '', remaining_text(session) or '',
}, call)
