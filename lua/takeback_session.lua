-- Take back the last cycles: the turn and the clocks become as they were when the first of them began. The time since
-- then is not charged to anybody. A clock that runs runs on, from now.
--
-- ARGV  16 number of cycles  17 reason as JSON text, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          no_takebacks · too_few_turns
-- Event  cycles_taken_back, then what is due because of it
-- @include _takebacks
-- @include _cycles
-- @include _command
-- @include _arguments

local cycles, reason = tonumber(ARGV[16]), ARGV[17]

assert(cycles and cycles > 0 and reason, 'an argument is missing')
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if not session.takebacks then return refuse('no_takebacks', now, session, call) end
if not active(session) then return refuse('invalid_transition', now, session, call) end
if #kept_turns(session) <= cycles then return refuse('too_few_turns', now, session, call) end

local elapsed = session.status == 'running' and 0 or nil
take_back(session, cycles)
if elapsed then start_clock(session, now) end
reset_warnings(session)

local event, patch = commit(session, keys, call, now, now, 'cycles_taken_back', with_active_ids(session, {
  more = '"cycles":' .. int(cycles), remaining_ms = remaining_text(session), reason = reason ~= '' and reason or nil,
}), 'client', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
