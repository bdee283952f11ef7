-- Writes of a session: its hash, its place among the deadlines and in the list (docs/keys.md). Messages, and the order of
-- all writes, are in _commit.
-- @include _session

local MAX_HSET_ARGUMENTS = 1000  -- unpack() is limited by Lua's stack

-- Write one changed record into its block, and note the block's name.
local function update_record(session, kind, index, text_of_record, updated)
  local name, at = record_position(kind, index)
  local block = session.blocks[name]
  session.blocks[name] = string.sub(block, 1, at) .. text_of_record(session.records[kind][index])
    .. string.sub(block, at + WIDTH[kind] + 1)
  updated[name] = true
end

-- The same for two records, as of the participants in a switch: one copy if they are in one block.
local function update_two_records(session, kind, index, later, text_of_record, updated)
  if later < index then index, later = later, index end
  local name, at = record_position(kind, index)
  local later_name, later_at = record_position(kind, later)
  if later_name ~= name then
    update_record(session, kind, index, text_of_record, updated)
    return update_record(session, kind, later, text_of_record, updated)
  end
  local block, records, width = session.blocks[name], session.records[kind], WIDTH[kind]
  session.blocks[name] = string.sub(block, 1, at) .. text_of_record(records[index])
    .. string.sub(block, at + width + 1, later_at) .. text_of_record(records[later])
    .. string.sub(block, later_at + width + 1)
  updated[name] = true
end

-- The same for any number of records.
local function update_records(session, kind, touched, text_of_record, updated)
  local indexes, parts_of = {}, {}
  for index in pairs(touched) do indexes[#indexes + 1] = index end
  table.sort(indexes)
  for _, index in ipairs(indexes) do
    local name, at = record_position(kind, index)
    local parts = parts_of[name] or {from = 1}
    parts[#parts + 1] = string.sub(session.blocks[name], parts.from, at)
    parts[#parts + 1] = text_of_record(session.records[kind][index])
    parts.from = at + WIDTH[kind] + 1
    parts_of[name] = parts
  end
  for name, parts in pairs(parts_of) do
    session.blocks[name] = table.concat(parts) .. string.sub(session.blocks[name], parts.from)
    updated[name] = true
  end
end

-- Write the changed records into their blocks. Returns a table whose keys are the names of the changed blocks.
local function update_blocks(session)
  local updated = {}
  for kind, touched in pairs(session.touched) do
    local text_of_record = kind == 'c' and session.rules.clock_text or record_text
    local first = next(touched)
    local second = first and next(touched, first)
    if second and next(touched, second) then update_records(session, kind, touched, text_of_record, updated)
    elseif second then update_two_records(session, kind, first, second, text_of_record, updated)
    elseif first then update_record(session, kind, first, text_of_record, updated) end
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
  if session.changed.turns then field('turns', table.concat(session.turns, '\n')) end
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
  if session.reopened then
    redis.call('HDEL', session.key, 'completion', 'completion_proof')
    redis.call('PERSIST', session.key)
    session.reopened = nil
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
