#!lua flags=allow-oom
-- Cancel a session. Cancelling it again succeeds and commits nothing.
--
-- ARGV  16 reason as JSON text, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · store_full
--          invalid_transition
-- Event  session_cancelled
-- @include _run
-- @include _memory
-- @include _command
-- @include _arguments

local reason = ARGV[16]

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status == 'cancelled' then
  if cannot_add_record(keys) then return refuse('store_full', now, nil, call) end
  return answer(session, keys, call, now)
end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end

local details = with_active_ids(session, {reason = reason ~= '' and reason or nil})
local elapsed = charge(session, now)
finish(session, 'cancelled', now)

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_cancelled', details,
  'client', elapsed))
