-- Return what a list shows of a session, after applying what is due.
--
-- Replies  ok · not_found · busy
-- Event  what was due: time_warning, participant_expired, group_expired, cycle_timed_out, session_expired,
--        session_cancelled, session_paused
-- @include _arguments
-- @include _command

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end

-- These are in place of a state; Summary.from_reply in Python reads them.
return reply('ok', now, {
  session.scalars, session.metadata, completion_word(session), active_id(session) or '', remaining_text(session) or '',
}, call)
