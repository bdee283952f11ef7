#!lua flags=allow-oom
-- Postpone the idle end of a watched session. This is not a commit: the version stays, and nothing is published.
-- Changes nothing if the idle end is already due or idle time does not count.
--
-- Replies  ok · not_found
-- Event  none
-- @include _command
-- @include _arguments

local now = server_now_ms()
local session = load_session(keys.session)
if not session then return refuse('not_found', now, nil, call) end

local idle_ms = now + session.idle_timeout_ms
local counts = LIVE[session.status] and counts_idle(session, timeout_at(session))
if counts and session.idle_ms > now and session.idle_ms < idle_ms then
  check_commit_permissions(keys)
  set(session, 'idle_ms', idle_ms)
  set_next_due(session, now)
  write_fields(session)
  write_deadline(session, keys, call, now)
end

return reply('ok', now, {}, call)
