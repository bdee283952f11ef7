#!lua flags=allow-oom
-- Delete a session. Deleting a missing session succeeds.
--
-- ARGV  16 '1' to erase it from the audit log as well; may be left out
-- Replies  ok · busy · version_conflict · idempotency_mismatch · session_gone · store_full
-- Event  session_deleted
-- @include _memory
-- @include _command
-- @include _arguments

local erases = ARGV[16] == '1'

local session, now, early_reply = begin(keys, call)
if early_reply and early_reply[1] ~= 'not_found' then return early_reply end
if not session then
  check_commit_permissions(keys)  -- also fails while sessions are moved: it may be elsewhere
  if cannot_add_record(keys) then return refuse('store_full', now, nil, call) end
  if erases then erase_logged(keys, call, now) end
  return answer(nil, keys, call, now)
end

set(session, 'status', 'deleted')

local event, patch = commit(session, keys, call, now, now, 'session_deleted', {}, 'client')
if erases then erase_logged(keys, call, now) end

return answer(session, keys, call, now, event, patch)
