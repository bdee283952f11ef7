-- Apply what is due in a session, if anything is, as every command does. Also corrects a stale entry among the
-- deadlines. In place of a state, the reply has the instants (ms) of what was applied.
--
-- Replies  ok · not_found · busy
-- Event  what was due: time_warning, participant_expired, group_expired, cycle_timed_out, session_expired,
--        session_cancelled, session_paused, period_started, period_lost, block_started
-- @include _command
-- @include _arguments

call.waits_for_lag = true
local session, now, early_reply = begin(keys, call)
if early_reply then
  if early_reply[1] == 'not_found' then
    remove_deadline(keys, call)
    update_list(nil, keys, call)
  end
  if early_reply[1] == 'busy' then early_reply[3] = call.instants end
  return early_reply
end

set_next_due(session, now)  -- an earlier release may have used another rule
if session.look_ms then write_deadline(session, keys, call, now) else remove_deadline(keys, call) end

return reply('ok', now, call.instants or {}, call)
