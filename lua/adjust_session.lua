-- Change what is left of one budget; one that runs and has nothing left times out at once.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 add, set or at_least  12 ms  13 participant or ''  14 group or ''  15 latest deadline (ms) or ''
--       16 reason as JSON text, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · unknown_group · no_participant_budget · no_group_budget · no_budget
--          adjustment_too_large
-- Event  time_adjusted, then what is due by it
-- @include _command
-- @include _adjust

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local op, ms, participant_arg, group_arg = ARGV[11], tonumber(ARGV[12]), ARGV[13], ARGV[14]
local not_after_ms, reason = tonumber(ARGV[15]), ARGV[16]

assert(ADJUST[op] and ms and participant_arg and group_arg and reason, 'an argument is missing')
local session, now = begin(keys, call)
if not session then return now end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end
local kind, index, word = adjusted_budget(session, participant_arg, group_arg)
if word then return refuse(word, now, session, call) end
local shown = shown_by(session, kind, index, now)
local target = adjusted_to(session, kind, index, now, ADJUST[op](shown, ms), not_after_ms)
if target < LEAST_REMAINING or target > MOST_REMAINING then
  return refuse('adjustment_too_large', now, session, call)
end

set_remaining(session, kind, index, holder_of(session, kind, index).time_remaining_ms + target - shown)
if target > 0 and has_crossed(session, kind, index) then set_crossed(session, kind, index, false) end
if is_current(session, kind, index) then renew_warnings(session, target) end
local event, patch = commit(session, keys, call, now, now, 'time_adjusted', {
  participant_id = kind == 'p' and quote(participant_id(session, index)) or nil,
  group_id = kind == 'g' and quote(group_id(session, index)) or nil,
  remaining_ms = int(target),
  adjusted_ms = int(target - shown),
  reason = reason ~= '' and reason or nil,
}, 'client')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
