#!lua flags=allow-oom
-- Complete a session. Completing it again succeeds and commits nothing.
--
-- ARGV  16 reason as JSON text, or ''  17 result as JSON text, or ''
--       18 salt and digest of the completion, or ''; all three may be left out
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · store_full
--          invalid_transition
-- Event  session_completed
-- @include _run
-- @include _memory
-- @include _command
-- @include _arguments

local reason, result, proof = ARGV[16] or '', ARGV[17] or '', ARGV[18] or ''

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status == 'completed' then
  if cannot_add_record(keys) then return refuse('store_full', now, nil, call) end
  return answer(session, keys, call, now)
end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end

local details = with_active_ids(session, {
  reason = reason ~= '' and reason or nil, result = result ~= '' and result or nil,
})
local elapsed = charge(session, now)
finish(session, 'completed', now)
if details.reason or details.result then set(session, 'completion', object({'reason', 'result'}, details)) end
if proof ~= '' then set(session, 'completion_proof', proof) end

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_completed', details,
  'client', elapsed))
