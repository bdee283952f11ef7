-- The one atomic write: nothing else calls a writing command, and no step can fail after the first.
-- @include _modes
-- @include _reply
-- @include _message

local SNAPSHOT_EVERY = 100
local NUDGE_MS = 1000
local MOST_ARGUMENTS = 1000

-- Write the changed scalars and the touched participants' blocks; session.static holds what only
-- a new session writes, a flat list of names and values.
local function write_fields(session)
  local fields = session.static or {}
  if session.static then redis.call('DEL', session.key) end
  for name in pairs(session.changed) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text_of(session[name])
  end
  local blocks = {}
  for index in pairs(session.touched) do
    local number, at = math.floor(index / BLOCK), (index % BLOCK) * WIDTH
    local block = session.blocks[number]
    session.blocks[number] = string.sub(block, 1, at) .. record_text(session.records[index])
      .. string.sub(block, at + WIDTH + 1)
    blocks[number] = true
  end
  if session.block_tags then
    local tag = int(session.version) .. '.' .. int(session.updated_ms)
    for number in pairs(session.static and session.blocks or blocks) do session.block_tags[number + 1] = tag end
    fields[#fields + 1] = 'block_tags'
    fields[#fields + 1] = table.concat(session.block_tags, ' ')
  end
  for number in pairs(blocks) do
    fields[#fields + 1] = 'p:' .. int(number)
    fields[#fields + 1] = session.blocks[number]
  end
  for first = 1, #fields, MOST_ARGUMENTS do
    redis.call('HSET', session.key, unpack(fields, first, math.min(first + MOST_ARGUMENTS - 1, #fields)))
  end
end

-- Leave of a deleted session what keeps its next epoch later than this one.
local function write_tombstone(session, call, now)
  local definition = redis.call('HGET', session.key, 'definition')
  redis.call('DEL', session.key)
  redis.call('HSET', session.key, 'epoch', int(session.epoch), 'updated_ms', int(session.updated_ms),
    'definition', definition)
  redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
end

-- Set the next instant to look at a live session; let a finished one go when its time has come.
local function schedule(session, keys, call, now)
  if LIVE[session.status] then
    local look = math.min(deadline_of(session) or session.idle_ms, session.idle_ms)
    redis.call('ZADD', keys.deadlines, int(look), call.session_id)
  elseif session.changed.status then
    redis.call('ZREM', keys.deadlines, call.session_id)
    if session.status ~= 'deleted' then
      redis.call('PEXPIREAT', session.key, int(now + call.session_ttl_ms))
    end
  end
end

-- Commit what was set and touched as one event that took effect at `at`; returns the command's reply.
--   word, details   the event's type, and JSON texts of what it concerns
--   actor           'client' for a command, 'system' for what a session does by itself
--   elapsed         ms charged by this commit, or nil
local function commit(session, keys, call, now, at, word, details, actor, elapsed)
  set(session, 'version', session.version + 1)
  set(session, 'updated_ms', at)
  if actor == 'client' and LIVE[session.status] then
    set(session, 'idle_ms', math.max(at, deadline_of(session) or at) + session.idle_timeout_ms)
  end
  local deleted = session.status == 'deleted'
  local ended = session.changed.status and not LIVE[session.status] and not deleted
  local event = event_of(word, at, details)
  local patch = deleted and '{}' or patch_of(session)
  if deleted then write_tombstone(session, call, now) else write_fields(session) end
  schedule(session, keys, call, now)
  local snapshot
  if ended or session.version == 1 or (session.version % SNAPSHOT_EVERY == 0 and not deleted) then
    snapshot = cjson.encode(state_of(session, '', ''))
  end
  local message = message_of(session, call, actor, elapsed, event, patch, snapshot)
  redis.call('XADD', keys.outbox, '*', 'message', message)
  if redis.call('SET', keys.nudge, '1', 'NX', 'PX', NUDGE_MS) then call.nudge = 1 end
  if actor == 'client' and keys.idempotency then
    local state = deleted and {} or state_of(session, int(session.epoch), '')
    local first = {call.fingerprint, int(now), event, patch, unpack(state)}
    redis.call('SET', keys.idempotency, cjson.encode(first), 'PX', int(call.idempotency_ttl_ms))
  end
  redis.call('PUBLISH', keys.channel, message)
  session.changed, session.touched = {}, {}
  return reply('ok', now, deleted and {} or state_for(session, call), call, event, patch)
end
