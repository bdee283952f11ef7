-- The one atomic write: nothing else calls a writing command, and no step can fail after the first.
-- @include _idle
-- @include _reply
-- @include _message
-- @include _rights
-- @include _idempotency

local SNAPSHOT_EVERY = 100
local NUDGE_MS = 500
local PLACED = 25  -- scalars with fixed places in a snapshot; later ones are written by name
local MOST_ARGUMENTS = 1000

-- Put the touched records into their blocks; returns the names of the blocks that changed.
local function renew_blocks(session)
  local renewed = {}
  for kind, touched in pairs(session.touched) do
    local indexes = {}
    for index in pairs(touched) do indexes[#indexes + 1] = index end
    table.sort(indexes)
    for _, index in ipairs(indexes) do
      local name, at = place_of(kind, index)
      local parts = renewed[name] or {from = 1}
      parts[#parts + 1] = string.sub(session.blocks[name], parts.from, at)
      parts[#parts + 1] = record_text(session.records[kind][index])
      parts.from = at + WIDTH + 1
      renewed[name] = parts
    end
  end
  for name, parts in pairs(renewed) do
    session.blocks[name] = table.concat(parts) .. string.sub(session.blocks[name], parts.from)
  end
  return renewed
end

-- Write the scalars and what else has changed; session.static holds what only a new session writes. The first
-- write is an HSET, which a server without memory refuses: after it nothing is.
local function write_fields(session)
  local fields = session.static or {}
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  renew_scalars(session)
  field('scalars', session.scalars)
  if session.changed.metadata then field('metadata', session.metadata) end
  if session.changed.completion then field('completion', session.completion) end
  local renewed = renew_blocks(session)
  for name in pairs(renewed) do field(name, session.blocks[name]) end
  if session.block_tags then
    local tag = int(session.version) .. '.' .. int(session.updated_ms)
    for number, name in ipairs(block_names(session)) do
      if session.static or renewed[name] then session.block_tags[number] = tag end
    end
    field('block_tags', table.concat(session.block_tags, ' '))
  end
  for first = 1, #fields, MOST_ARGUMENTS do
    redis.call('HSET', session.key, unpack(fields, first, math.min(first + MOST_ARGUMENTS - 1, #fields)))
  end
  if session.static then  -- what a tombstone had
    redis.call('HDEL', session.key, 'epoch', 'updated_ms')
    redis.call('PERSIST', session.key)
    session.static = nil
  end
end

-- Leave of a deleted session what keeps its next epoch later than this one.
local function write_tombstone(session, call, now)
  redis.call('DEL', session.key)
  redis.call('HSET', session.key, 'epoch', int(session.epoch), 'updated_ms', int(session.updated_ms))
  redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
end

-- Write a key that lasts for a second: a server that accepts no writes raises its error.
local function try_write(keys)
  redis.call('SET', keys.idempotency, '', 'PX', 1000)
end

-- Take a stale session away, so that another can take its place.
local function clear(session)
  redis.call('DEL', session.key)
end

-- The whole state as a list of strings, one for each scalar. Scalars that earlier releases do not know are
-- written in the place of a reply's tags: those releases read by position, and ignore that place.
local function snapshot_of(session)
  local snapshot, named = {unpack(session.texts, 1, PLACED)}, {}
  for i = PLACED + 1, #SCALARS do
    if session.texts[i] ~= '' then named[#named + 1] = SCALARS[i] .. '=' .. session.texts[i] end
  end
  local state = state_of(session, '', '')
  state[TAGS] = table.concat(named, ' ') .. completion_word(session)
  for i = 2, #state do snapshot[#snapshot + 1] = state[i] end
  return snapshot
end

-- Take a session that is not live off the deadlines.
local function forget(keys, call)
  redis.call('ZREM', keys.deadlines, call.session_id)
end

-- Add a new session to the list, and again at each new status, so that a lost list refills. For a deleted session, or
-- none: remove it.
local function list(session, keys, call)
  if not session or session.status == 'deleted' then
    redis.call('ZREM', keys.listed, call.session_id)
  elseif session.version == 1 or session.changed.status then
    redis.call('ZADD', keys.listed, int(session.created_ms), call.session_id)
  end
end

-- Set the next instant to look at a live session; let a finished one go when its time has come.
local function schedule(session, keys, call, now)
  if session.look_ms then
    redis.call('ZADD', keys.deadlines, int(session.look_ms), call.session_id)
  elseif session.changed.status then
    redis.call('ZREM', keys.deadlines, call.session_id)
    if session.status ~= 'deleted' then
      redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
    end
  end
end

-- Chain the message to the next one; returns its hash.
local function chain_on(session, message)
  session.chain = redis.sha1hex(message)
  return session.chain
end

-- Publish the messages of this call's commits: the last thing a call does.
local function publish(keys, call)
  for _, message in ipairs(call.messages or {}) do redis.call('PUBLISH', keys.channel, message) end
  call.messages = nil
end

-- Commit what was set and touched as one event that took effect at `at`; returns its event and patch. Whoever
-- calls it publishes, when there is nothing left to write. The returned patch has the idle end and the
-- completion, too; the message has them beside the patch, because an earlier release fails on unknown members of it.
--   word, details   the event's type, and JSON texts of what it concerns
--   actor           'client' for a command, 'system' for what a session does by itself
--   elapsed         ms charged by this commit, or nil
local function commit(session, keys, call, now, at, word, details, actor, elapsed)
  set(session, 'version', session.version + 1)
  set(session, 'updated_ms', at)
  plan(session, at, actor == 'client')
  if actor == 'client' and session.unattended then set(session, 'unattended', nil) end
  check_rights_of(session, keys, call, now, actor)
  local deleted = session.status == 'deleted'
  local ended = session.changed.status and not LIVE[session.status] and not deleted
  local event = event_of(word, at, details)
  local patch = deleted and '{}' or patch_of(session)
  if deleted then write_tombstone(session, call, now) else write_fields(session) end
  local completion = completion_of(session)
  local ending = completion and ',"completion":' .. completion or ''
  local idle, told = session.idling and ',"idle_ms":' .. int(session.idle_ms) or '', patch
  local cleared = session.changed.idling and not session.idling and ',"idle_ms":null' or ''
  local more = idle .. cleared .. ending
  if not deleted and more ~= '' then told = string.sub(patch, 1, -2) .. more .. '}' end
  schedule(session, keys, call, now)
  list(session, keys, call)
  local snapshot
  if ended or session.version == 1 or (session.version % SNAPSHOT_EVERY == 0 and not deleted) then
    snapshot = cjson.encode(snapshot_of(session))
  end
  local message = message_of(session, call, actor, elapsed, event, patch, idle .. ending, snapshot)
  redis.call('HSET', session.key, 'chain', chain_on(session, message))
  redis.call('XADD', keys.outbox, '*', 'message', message)
  if redis.call('SET', keys.nudge, '1', 'NX', 'PX', NUDGE_MS) then call.nudge = 1 end
  call.messages = call.messages or {}
  table.insert(call.messages, message)
  session.changed, session.touched = {}, {p = {}, g = {}}
  return event, told
end

-- Answer a command, keep a record of it for its idempotency key, and publish. No session: it is deleted; no event:
-- there was nothing to change.
local function answer(session, keys, call, now, event, patch)
  local left = session and session.status ~= 'deleted' and session or nil
  if keys.idempotency then
    local record = idempotency_record(left, call, event, patch)
    redis.call('SET', keys.idempotency, record, 'PX', int(call.idempotency_ttl_ms))
  end
  publish(keys, call)
  return reply('ok', now, left and state_for(left, call) or {}, call, event, patch)
end
