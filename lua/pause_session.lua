-- Stop the clock. `resume` continues the cycle.
--
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
-- Event  session_paused
-- @include _run
-- @include _command
-- @include _arguments

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status ~= 'running' then return refuse('invalid_transition', now, session, call) end

local elapsed = charge(session, now)
stop_clock(session, 'paused')

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_paused',
  with_active_ids(session, {remaining_ms = remaining_text(session)}), 'client', elapsed))
