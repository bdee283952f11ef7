-- The one atomic write. Only this partial and _write change a session, and no step can fail after the first write.
-- @include _idle
-- @include _write
-- @include _reply
-- @include _message
-- @include _private
-- @include _acl
-- @include _fanout
-- @include _idempotency

local SNAPSHOT_EVERY = 100
local NUDGE_MS = 500

-- Keep the hash of the hashed message, which the next message names as `previous`. Returns the hash.
local function update_chain(session, message)
  session.chain = redis.sha1hex(message)
  return session.chain
end

-- Publish the messages of this call's commits. That must come after all writes, so that no subscriber sees a commit
-- that is not complete.
local function publish(keys, call)
  if not call.messages then return end
  for _, message in ipairs(call.messages) do redis.call(PUBLISH, keys.channel, message) end
  call.messages = nil
end

-- Commit the changes as one event. The caller calls publish() after its last write. Returns the event and the patch as
-- JSON texts. The returned patch includes idle_ms and completion. In the message these are members beside the patch,
-- because an earlier release fails on members of a patch that it does not know. The published message has all values;
-- the hashed one, which goes into the outbox, has digests of private parts (_private), and a second line with these.
--   at          the instant (ms) at which the event took effect
--   event_type  the event's type
--   details     JSON texts of the event's other members
--   actor       'client' for a command, 'system' for what a session does by itself
--   elapsed     ms charged by this commit, or nil
local function commit(session, keys, call, now, at, event_type, details, actor, elapsed)
  set(session, 'version', session.version + 1)
  set(session, 'updated_ms', at)
  set_next_due(session, at, actor == 'client')
  if actor == 'client' and session.unattended then set(session, 'unattended', nil) end
  check_permissions(session, keys, call, now, actor)
  local deleted = session.status == 'deleted'
  local finished = session.changed.status and not LIVE[session.status] and not deleted
  local event = event_of(event_type, at, details)
  local patch = deleted and '{}' or patch_of(session)
  if deleted then write_tombstone(session, call, now) else write_fields(session) end
  local completion = completion_of(session)
  local completion_member = completion and ',"completion":' .. completion or ''
  local idle_member = session.idling and ',"idle_ms":' .. int(session.idle_ms) or ''
  local idle_cleared = session.changed.idling and not session.idling and ',"idle_ms":null' or ''
  local added, full_patch = idle_member .. idle_cleared .. completion_member, patch
  if not deleted and added ~= '' then full_patch = string.sub(patch, 1, -2) .. added .. '}' end
  write_deadline(session, keys, call, now)
  update_list(session, keys, call)
  local snapshot
  if finished or session.version == 1 or session.wants_snapshot
    or (session.version % SNAPSHOT_EVERY == 0 and not deleted) then
    session.wants_snapshot = nil
    snapshot = snapshot_of(session)
  end
  local private = private_parts(session, call, actor, session.changed.metadata or snapshot, completion)
  local message
  if not private or hides_values(private) then
    message = message_of(session, call, actor, elapsed, event, patch, idle_member .. completion_member, snapshot)
  end
  local hashed = private and hashed_message(session, call, actor, elapsed, private, event, details, patch, idle_member,
    completion_member, snapshot) or message
  if call.limit_us then
    redis.call('HSET', session.key, 'chain', update_chain(session, hashed), 'limit_us', call.limit_us)
  else
    redis.call('HSET', session.key, 'chain', update_chain(session, hashed))
  end
  redis.call('XADD', keys.outbox, '*', 'message', private and hashed .. '\n{' .. private.parts .. '}' or hashed)
  -- The reply asks for a drain, at most once per bucket within NUDGE_MS.
  if redis.call('SET', keys.nudge, '1', 'NX', 'PX', NUDGE_MS) then call.nudge = 1 end
  call.messages = call.messages or {}
  table.insert(call.messages, message or hashed)
  session.changed, session.touched = {}, {p = {}, g = {}}
  return event, full_patch
end

-- Ask the worker to erase a deleted or missing session from the audit log, in its epochs up to now. The tombstone makes
-- sure that a later session with this id has a later epoch, and that this one is not restored from the log.
local function erase_logged(keys, call, now)
  check_all_permissions(keys)
  local stored = redis.call('HMGET', keys.session, 'epoch', 'updated_ms')
  local before = math.max(now, tonumber(stored[1]) or 0)
  redis.call('HSET', keys.session, 'epoch', int(before), 'updated_ms', stored[2] or int(now))
  redis.call('PEXPIREAT', keys.session, int(now + call.session_ttl_ms))
  redis.call('XADD', keys.outbox, '*', 'message', '{"erase":{' .. call.names .. '},"before":' .. int(before) .. '}')
  if redis.call('SET', keys.nudge, '1', 'NX', 'PX', NUDGE_MS) then call.nudge = 1 end
end

-- Answer a command: write its idempotency record, publish, and return the reply. `session` is nil if there is none;
-- event and patch are nil if nothing was committed.
local function answer(session, keys, call, now, event, patch)
  if session and session.status == 'deleted' then session = nil end
  if call.charge_quotas then call.charge_quotas() end
  if session and call.commits_paid_ms then
    redis.call('HSET', session.key, 'commits_paid_ms', int(call.commits_paid_ms))
  end
  if keys.idempotency then
    local record = idempotency_record(session, call, event, patch)
    redis.call('SET', keys.idempotency, record, 'PX', int(call.idempotency_ttl_ms))
  end
  publish(keys, call)
  return reply('ok', now, session and state_for(session, call) or {}, call, event, patch)
end
