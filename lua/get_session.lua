-- Return a session after applying what is due.
--
-- Replies  ok · not_found · busy
-- Event  what was due: time_warning, participant_expired, group_expired, cycle_timed_out, session_expired,
--        session_cancelled, session_paused, period_started, period_lost, block_started
-- @include _command
-- @include _arguments

call.waits_for_lag = true
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end

return reply('ok', now, state_for(session, call), call)
