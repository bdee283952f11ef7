-- Return what a list shows of a session, after applying what is due.
--
-- Replies  ok · not_found · busy
-- Event  what was due: time_warning, participant_expired, group_expired, cycle_timed_out, session_expired,
--        session_cancelled, session_paused, period_started, period_lost, block_started
-- @include _command
-- @include _arguments

call.waits_for_lag = true
local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end

-- With a time control: the clock's record, whether it has run out, and its owner's control.
local summary = ''
if session.rules then
  local owner = session.rules.current_owner(session)
  summary = session.rules.clock_text(owner.clock) .. (owner.record.has_expired and 1 or 0) .. owner.control.text
end

-- These are in place of a state; Summary.from_reply in Python reads them.
return reply('ok', now, {
  session.scalars, session.metadata, completion_word(session), active_id(session) or '', remaining_text(session) or '',
  summary,
}, call)
