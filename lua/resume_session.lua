-- Start the clock of a paused session again, in the same cycle.
--
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
-- Event  session_resumed, then what is due because of it
-- @include _run
-- @include _command
-- @include _arguments

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status ~= 'paused' then return refuse('invalid_transition', now, session, call) end

start_clock(session, now)

local event, patch = commit(session, keys, call, now, now, 'session_resumed', with_active_ids(session, {
  remaining_ms = remaining_text(session),
}), 'client')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
