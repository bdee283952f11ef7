-- Give a session a later epoch, as it stands: the log tells of another past under the present one.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 epoch it is at  3 version it is at  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 last epoch in the log
-- Replies  ok · not_found · version_conflict
-- Event  session_restored, then what is due
-- @include _command
-- @include _restore

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local last_epoch = tonumber(ARGV[11])

check_call(keys, call)
assert(call.expected_epoch ~= '' and call.expected_version ~= '' and last_epoch, 'an argument is missing')
local now = server_now_ms()
local session = load_session(keys.session)
if not session then return refuse('not_found', now, nil, call) end
if not is_expected(session, call) then return refuse('version_conflict', now, session, call) end

now = math.max(now, session.updated_ms)
set(session, 'epoch', math.max(now, session.epoch + 1, last_epoch + 1))
set(session, 'version', 0)
set(session, 'status', session.status)
set(session, 'metadata_version', 1)
local at = session.updated_ms
local event, patch = commit(session, keys, call, now, at, 'session_restored', concerning(session, {
  remaining_ms = shown_text(session, at), reason = quote('fork'),
}), 'system')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
