-- The one atomic write. Only this partial calls writing commands, and no step can fail after the first write.
-- @include _idle
-- @include _reply
-- @include _message
-- @include _private
-- @include _acl
-- @include _idempotency

local SNAPSHOT_EVERY = 100
local NUDGE_MS = 500
local MAX_HSET_ARGUMENTS = 1000  -- unpack() is limited by Lua's stack

-- Write the changed records into their blocks. Returns a table whose keys are the names of the changed blocks.
local function update_blocks(session)
  local updated = {}
  for kind, touched in pairs(session.touched) do
    local indexes = {}
    for index in pairs(touched) do indexes[#indexes + 1] = index end
    table.sort(indexes)
    for _, index in ipairs(indexes) do
      local name, at = record_position(kind, index)
      local parts = updated[name] or {from = 1}
      parts[#parts + 1] = string.sub(session.blocks[name], parts.from, at)
      parts[#parts + 1] = record_text(session.records[kind][index])
      parts.from = at + WIDTH + 1
      updated[name] = parts
    end
  end
  for name, parts in pairs(updated) do
    session.blocks[name] = table.concat(parts) .. string.sub(session.blocks[name], parts.from)
  end
  return updated
end

-- Write the scalars and the other changed fields. session.static has the fields that only a new session writes. HSET is
-- a commit's first write: a full server refuses that one, but no later write of the same call.
local function write_fields(session)
  local fields = session.static or {}
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  update_scalars(session)
  field('scalars', session.scalars)
  if session.changed.metadata then field('metadata', session.metadata) end
  if session.changed.metadata_proof then
    local proof = session.metadata_proof
    field('metadata_proof', proof ~= '' and proof .. ' ' .. redis.sha1hex(session.metadata) or '')
  end
  if session.changed.completion then field('completion', session.completion) end
  if session.changed.completion_proof then field('completion_proof', session.completion_proof) end
  local updated = update_blocks(session)
  for name in pairs(updated) do field(name, session.blocks[name]) end
  if session.block_tags then
    local tag = int(session.version) .. '.' .. int(session.updated_ms)
    for number, name in ipairs(block_names(session)) do
      if session.static or updated[name] then session.block_tags[number] = tag end
    end
    field('block_tags', table.concat(session.block_tags, ' '))
  end
  for first = 1, #fields, MAX_HSET_ARGUMENTS do
    redis.call('HSET', session.key, unpack(fields, first, math.min(first + MAX_HSET_ARGUMENTS - 1, #fields)))
  end
  if session.static then  -- remove what a tombstone left
    redis.call('HDEL', session.key, 'epoch', 'updated_ms')
    redis.call('PERSIST', session.key)
    session.static = nil
  end
end

-- Replace a deleted session by a tombstone. It keeps the epoch of a later session with this id later than this one.
local function write_tombstone(session, call, now)
  redis.call('DEL', session.key)
  redis.call('HSET', session.key, 'epoch', int(session.epoch), 'updated_ms', int(session.updated_ms))
  redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
end

-- Write a key with a lifetime of one second. A server that accepts no writes raises its error here.
local function write_probe(keys)
  redis.call('SET', keys.idempotency, '', 'PX', 1000)
end

-- Delete the hash of a stale session, so that a restored one can replace it.
local function delete_hash(session)
  redis.call('DEL', session.key)
end

local function remove_deadline(keys, call)
  redis.call('ZREM', keys.deadlines, call.session_id)
end

-- Add a session to the list when it is new and at each change of its status, so that a lost list fills up again. Remove
-- a session that is deleted or does not exist (nil).
local function update_list(session, keys, call)
  if not session or session.status == 'deleted' then
    redis.call('ZREM', keys.listed, call.session_id)
  elseif session.version == 1 or session.changed.status then
    redis.call('ZADD', keys.listed, int(session.created_ms), call.session_id)
  end
end

-- Write the next instant at which a live session is due. Remove a session that has just finished from the deadlines,
-- and let its hash expire.
local function write_deadline(session, keys, call, now)
  if session.look_ms then
    redis.call('ZADD', keys.deadlines, int(session.look_ms), call.session_id)
  elseif session.changed.status then
    redis.call('ZREM', keys.deadlines, call.session_id)
    if session.status ~= 'deleted' then
      redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
    end
  end
end

-- Keep the hash of the hashed message, which the next message names as `previous`. Returns the hash.
local function update_chain(session, message)
  session.chain = redis.sha1hex(message)
  return session.chain
end

-- Publish the messages of this call's commits. PUBLISH must come after all writes, so that no subscriber sees a commit
-- that is not complete.
local function publish(keys, call)
  for _, message in ipairs(call.messages or {}) do redis.call('PUBLISH', keys.channel, message) end
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
  if finished or session.version == 1 or (session.version % SNAPSHOT_EVERY == 0 and not deleted) then
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
