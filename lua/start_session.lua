-- Start the clock of a pending session.
--
-- ARGV  16 participant who begins, or '' for the first in rotation
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant
-- Event  session_started, then what is due because of it
-- @include _cycles
-- @include _command
-- @include _arguments

local participant_arg = ARGV[16]

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status ~= 'pending' then return refuse('invalid_transition', now, session, call) end
local first_index = session.participant_count > 0 and 0 or nil
if participant_arg ~= '' then
  first_index = participant_index(session, participant_arg)
  if not first_index then return refuse('unknown_participant', now, session, call) end
end

set(session, 'session_started_ms', now)
give_turn(session, first_index)
start_clock(session, now)
begin_turn(session)
reset_warnings(session)

local event, patch = commit(session, keys, call, now, now, 'session_started', with_active_ids(session, {
  remaining_ms = remaining_text(session),
}), 'client')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
