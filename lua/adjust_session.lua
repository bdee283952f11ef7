-- Change the remaining time of budgets and, with a time control, the stage, the periods or the block of their owners. A
-- running budget that has nothing left times out at once.
--
-- ARGV  16 operation: add, set or at_least  17 ms  18 what the ids are of: participant, group or target
--       19 latest deadline (ms) or ''  20 reason as JSON text, or ''
--       21 stage  22 moves to the next stage  23 periods left  24 rest of the period or block (ms)
--       25 moves left in the block; each of these may be ''
--       26… ids, or '*' for everybody; without any, the budget that runs or would run
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · invalid_transition
--          unknown_participant · unknown_group · unknown_target · no_participant_budget · no_group_budget · no_budget
--          adjustment_too_large · no_time_control · no_such_stage · no_moves · no_periods · no_period · no_block
-- Event  time_adjusted, then what is due because of it
-- @include _run
-- @include _command
-- @include _adjust
-- @include _arguments

local operation, ms, named, not_after_ms, reason = ARGV[16], tonumber(ARGV[17]), ARGV[18], tonumber(ARGV[19]), ARGV[20]
local change = {operation = operation, ms = ms, not_after_ms = not_after_ms, clock = {
  stage = tonumber(ARGV[21]), moves_to_next_stage = tonumber(ARGV[22]), periods_left = tonumber(ARGV[23]),
  period_remaining_ms = tonumber(ARGV[24]), block_moves_left = tonumber(ARGV[25]),
}}
local ids = {unpack(ARGV, 26)}

assert(OPERATIONS[operation] and ms and named and reason, 'an argument is missing')
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if not LIVE[session.status] then return refuse('invalid_transition', now, session, call) end
local kind, indexes, word = adjusted_budgets(session, named, ids)
if not word and next(change.clock) and not session.rules then word = 'no_time_control' end
if word then return refuse(word, now, session, call) end
local elapsed = session.rules and charge(session, now)
if elapsed then start_clock(session, now) end
local details
details, word = adjust_budgets(session, kind, indexes, named == 'target', now, change)
if word then return refuse(word, now, session, call) end
details.reason = reason ~= '' and reason or nil
forget_turns(session)

local event, patch = commit(session, keys, call, now, now, 'time_adjusted', details, 'client', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
