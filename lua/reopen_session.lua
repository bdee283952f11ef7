-- Reopen a session that ended by mistake: it is paused, with all clocks as they were at its end. One that had not been
-- started is pending.
--
-- ARGV  16 reason as JSON text, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          no_cycles_left
-- Event  session_reopened
-- @include _run
-- @include _command
-- @include _arguments

local reason = ARGV[16]

assert(reason, 'an argument is missing')
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if LIVE[session.status] then return refuse('invalid_transition', now, session, call) end
if session.max_cycles and session.cycle_count >= session.max_cycles then
  return refuse('no_cycles_left', now, session, call)
end

session.reopened, session.wants_snapshot = true, true
stop_clock(session, 'paused')
if not session.session_started_ms then set(session, 'status', 'pending') end
set(session, 'session_completed_ms', nil)
local kind, index = current_budget(session)
-- The budget may run out again.
if kind and has_crossed(session, kind, index) then set_crossed(session, kind, index, false) end
if session.turn then touch(session, 'p', session.turn) end

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_reopened',
  with_active_ids(session, {
    remaining_ms = remaining_text(session), reason = reason ~= '' and reason or nil,
  }), 'client'))
