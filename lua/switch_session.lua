-- End the active participant's cycle and hand the turn on.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 next participant, or '' for the next in rotation  12 participant whose turn it must be, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · not_active_participant · unknown_next_participant
--          expired_next_participant
-- Event  cycle_switched, then what is due by it
-- @include _command

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local next_arg, mover_arg = ARGV[11], ARGV[12]

local session, now = begin(keys, call)
if not session then return now end
if session.status ~= 'running' then return refuse('invalid_transition', now, session, call) end
local details = concerning(session, {})
if mover_arg ~= '' and quote(mover_arg) ~= details.participant_id then
  local word = participant_index(session, mover_arg) and 'not_active_participant' or 'unknown_participant'
  return refuse(word, now, session, call)
end
local next = session.turn and next_in_rotation(session)
if next_arg ~= '' then
  next = participant_index(session, next_arg)
  if not next then return refuse('unknown_next_participant', now, session, call) end
  if out_of_time(session, next) then return refuse('expired_next_participant', now, session, call) end
end

local elapsed = charge(session, now)
details.remaining_ms = credit_increment(session)
if hand_over(session, next, now) and next then details.next_participant_id = quote(participant_id(session, next)) end

local event, patch = commit(session, keys, call, now, now, 'cycle_switched', details, 'client', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
