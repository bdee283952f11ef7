-- End the active participant's cycle and give the turn to the next participant.
--
-- ARGV  16 next participant, or '' for the next in rotation  17 participant who must be active, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · not_active_participant · unknown_next_participant · expired_next_participant
-- Event  cycle_switched, then what is due because of it
-- @include _arguments
-- @include _cycles
-- @include _command

local next_participant_arg, participant_arg = ARGV[16], ARGV[17]

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if session.status ~= 'running' then return refuse('invalid_transition', now, session, call) end
local details = with_active_ids(session, {})
if participant_arg ~= '' and quote(participant_arg) ~= details.participant_id then
  local word = participant_index(session, participant_arg) and 'not_active_participant' or 'unknown_participant'
  return refuse(word, now, session, call)
end
local next_index = session.turn and next_in_rotation(session)
if next_participant_arg ~= '' then
  next_index = participant_index(session, next_participant_arg)
  if not next_index then return refuse('unknown_next_participant', now, session, call) end
  if is_out_of_time(session, next_index) then return refuse('expired_next_participant', now, session, call) end
end

local elapsed = charge(session, now)
details.remaining_ms = credit_increment(session)
if end_cycle(session, next_index, now) and next_index then
  details.next_participant_id = quote(participant_id(session, next_index))
end

local event, patch = commit(session, keys, call, now, now, 'cycle_switched', details, 'client', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
