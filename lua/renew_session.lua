-- Give a session a later epoch and keep its state: the audit log has other commits under its present epoch. The
-- expected epoch and version are required.
--
-- ARGV  16 last epoch in the log
-- Replies  ok · not_found · version_conflict
-- Event  session_restored, then what is due
-- @include _restore
-- @include _command
-- @include _arguments

local last_epoch = tonumber(ARGV[16])

assert(call.expected_epoch ~= '' and call.expected_version ~= '' and last_epoch, 'an argument is missing')
local now = server_now_ms()
local session = load_session(keys.session)
if not session then return refuse('not_found', now, nil, call) end
if not is_expected(session, call) then return refuse('version_conflict', now, session, call) end

now = math.max(now, session.updated_ms)
set(session, 'epoch', math.max(now, session.epoch + 1, last_epoch + 1))
set(session, 'version', 0)
set(session, 'status', session.status)
set(session, 'metadata_version', 1)

local at = session.updated_ms
local event, patch = commit(session, keys, call, now, at, 'session_restored', with_active_ids(session, {
  remaining_ms = shown_text(session, at), reason = quote('fork'),
}), 'system')
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
