#!lua flags=allow-oom
-- End a session as intended; asked again, it answers and commits nothing.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 reason as JSON text, or ''  12 result as JSON text, or ''; neither if nothing is to be kept
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · store_full
--          invalid_transition
-- Event  session_completed
-- @include _memory
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
local reason, result = ARGV[11] or '', ARGV[12] or ''

local session, now = begin(keys, call)
if not session then return now end
if session.status == 'completed' then
  if refuses_record(keys) then return refuse('store_full', now, nil, call) end
  return answer(session, keys, call, now)
end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end

local details = concerning(session, {
  reason = reason ~= '' and reason or nil, result = result ~= '' and result or nil,
})
local elapsed = charge(session, now)
finish(session, 'completed', now)
if details.reason or details.result then set(session, 'completion', object({'reason', 'result'}, details)) end

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_completed', details,
  'client', elapsed))
