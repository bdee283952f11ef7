-- End the active participant's cycle and give the turn to the next participant.
--
-- ARGV  16 next participant, or '' for the next in rotation  17 participant who must be active, or ''
--       18 '1' if the move is neither charged nor rewarded; may be left out, as may all that follow
--       19 instant (ms) of the act, or ''  20 time (ms) that the client says it needed, or ''
--       21 the most (ms) that the connection's lag may be, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · not_active_participant · unknown_next_participant · expired_next_participant
-- Event  cycle_switched; with a time control also stage_entered or block_started; then what is due because of it
-- @include _cycles
-- @include _command
-- @include _arguments

local next_participant_arg, participant_arg, is_free = ARGV[16], ARGV[17], ARGV[18] == '1'
local acted_ms, spent_ms, limit_ms = tonumber(ARGV[19]), tonumber(ARGV[20]), tonumber(ARGV[21])

call.waits_for_lag = true
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
local lag_ms, settled = 0, true
if session.rules then
  -- @include _act
  lag_ms, settled = settle_until_act(session, keys, call, now, participant_arg, acted_ms, spent_ms, limit_ms)
  if not settled then return refuse('busy', now, nil, call) end
  if not is_expected(session, call) then return refuse('version_conflict', now, session, call) end
end
if session.status ~= 'running' then return refuse('invalid_transition', now, session, call) end
local details = with_active_ids(session, {type = nil, at_ms = nil, remaining_ms = nil, next_participant_id = nil})
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

local elapsed = charge(session, now - lag_ms)
local entry = complete_move(session, details, lag_ms, is_free)
if end_cycle(session, next_index, now) and next_index then
  details.next_participant_id = quote(participant_id(session, next_index))
end

local event, patch = commit(session, keys, call, now, now, 'cycle_switched', details, 'client', elapsed)
if entry and session.status == 'running' then
  commit(session, keys, call, now, now, entry.type, entry.details, 'system')
end
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
