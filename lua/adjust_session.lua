-- Change the remaining time of one budget. A running budget that has nothing left times out at once.
--
-- ARGV  16 operation: add, set or at_least  17 ms  18 participant or ''  19 group or ''
--       20 latest deadline (ms) or ''  21 reason as JSON text, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · unknown_group · no_participant_budget · no_group_budget · no_budget
--          adjustment_too_large
-- Event  time_adjusted, then what is due because of it
-- @include _arguments
-- @include _command
-- @include _adjust

local operation, ms, participant_arg, group_arg = ARGV[16], tonumber(ARGV[17]), ARGV[18], ARGV[19]
local not_after_ms, reason = tonumber(ARGV[20]), ARGV[21]

assert(OPERATIONS[operation] and ms and participant_arg and group_arg and reason, 'an argument is missing')
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end
local kind, index, word = adjusted_budget(session, participant_arg, group_arg)
if word then return refuse(word, now, session, call) end
local shown = shown_remaining(session, kind, index, now)
local target = limited_target(session, kind, index, now, OPERATIONS[operation](shown, ms), not_after_ms)
if target < MIN_REMAINING_MS or target > MAX_REMAINING_MS then
  return refuse('adjustment_too_large', now, session, call)
end

set_remaining(session, kind, index, budget_holder(session, kind, index).time_remaining_ms + target - shown)
if target > 0 and has_crossed(session, kind, index) then set_crossed(session, kind, index, false) end
if is_current(session, kind, index) then rearm_warnings(session, target) end

local event, patch = commit(session, keys, call, now, now, 'time_adjusted', {
  participant_id = kind == 'p' and quote(participant_id(session, index)) or nil,
  group_id = kind == 'g' and quote(group_id(session, index)) or nil,
  remaining_ms = int(target),
  adjusted_ms = int(target - shown),
  reason = reason ~= '' and reason or nil,
}, 'client')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
