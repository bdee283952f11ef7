-- A session in memory: loaded from its hash, changed here, written by _commit alone.
-- @include _json

-- Scalar fields in the order of a state reply; syncapp/state.py reads them in this order.
local SCALARS = {
  'epoch', 'version', 'status', 'sync_mode', 'participant_count', 'increment_ms', 'on_timeout',
  'idle_timeout_ms', 'turn', 'cycle_count', 'cycle_started_ms', 'session_started_ms',
  'session_completed_ms', 'created_ms', 'updated_ms', 'idle_ms', 'metadata_version',
}
local LIVE = {pending = true, running = true, paused = true}

-- Participants' totals stand in blocks of fixed-width records, so that a switch touches one or two
-- blocks, and a whole state reads few fields, however many participants there are.
local BLOCK = 128
local WIDTH = 32
local RECORD = '%11d%11d%9d%1d'

-- With more than one block, `block_tags` says which commit each was last written by, as version.instant:
-- a caller that has blocks of the same tags is not sent them again.
-- One read brings all that most commands need: the scalars, the metadata, the first block.
local LOADED = {unpack(SCALARS)}
LOADED[#LOADED + 1] = 'metadata'
LOADED[#LOADED + 1] = 'p:0'
LOADED[#LOADED + 1] = 'block_tags'

-- A list of words; nil when there is no text.
local function split(text)
  if not text then return nil end
  local words = {}
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  return words
end

local function load_session(key)
  local values = redis.call('HMGET', key, unpack(LOADED))
  if not values[2] then return nil end
  local session = {
    key = key, changed = {}, touched = {}, records = {},
    metadata = values[#SCALARS + 1], blocks = {[0] = values[#SCALARS + 2] or nil},
  }
  session.block_tags = split(values[#SCALARS + 3])
  for i, name in ipairs(SCALARS) do
    local text = values[i]
    if text ~= '' then session[name] = tonumber(text) or text or nil end
  end
  return session
end

-- Change one field; the hash holds '' for nil.
local function set(session, name, value)
  session[name] = value
  session.changed[name] = true
end

local function text_of(value)
  if type(value) == 'number' then return int(value) end
  return value or ''
end

local function participant_id(session, index)
  return redis.call('HGET', session.key, 'id:' .. int(index))
end

-- The place in the rotation of an id, or nil when there is none of this id.
local function participant_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'index:' .. id))
end

local function participant(session, index)
  local record = session.records[index]
  if record then return record end
  local number = math.floor(index / BLOCK)
  local block = session.blocks[number] or redis.call('HGET', session.key, 'p:' .. int(number))
  session.blocks[number] = block
  local at = (index % BLOCK) * WIDTH
  record = {
    time_used_ms = tonumber(string.sub(block, at + 1, at + 11)),
    time_remaining_ms = tonumber(string.sub(block, at + 12, at + 22)),
    cycle_count = tonumber(string.sub(block, at + 23, at + 31)),
    has_expired = string.sub(block, at + 32, at + 32) == '1',
  }
  session.records[index] = record
  return record
end

-- Say that a participant's record or turn has changed; returns the record.
local function touch(session, index)
  session.touched[index] = true
  return participant(session, index)
end

local function record_text(record)
  return string.format(RECORD, record.time_used_ms, record.time_remaining_ms, record.cycle_count,
    record.has_expired and 1 or 0)
end

-- The active participant's index, or nil when nobody is: pending and terminal sessions have none.
local function active(session)
  if session.status == 'running' or session.status == 'paused' then return session.turn end
  return nil
end

local function active_id(session)
  local index = active(session)
  return index and participant_id(session, index) or nil
end
