-- A session in memory: loaded from its hash, changed here, written by _commit alone.
-- @include _json

-- Scalar fields in the order of a state reply; syncapp/state.py reads them in this order.
local SCALARS = {
  'epoch', 'version', 'status', 'sync_mode', 'participant_count', 'increment_ms', 'on_timeout',
  'idle_timeout_ms', 'turn', 'cycle_count', 'cycle_started_ms', 'session_started_ms',
  'session_completed_ms', 'created_ms', 'updated_ms', 'idle_ms', 'metadata_version',
}
local WORDS = {status = true, sync_mode = true, on_timeout = true}
local DEFINITION = #SCALARS + 2  -- its place in a state reply, after the metadata
local LIVE = {pending = true, running = true, paused = true}

-- Participants' totals stand in blocks of fixed-width records, so that a switch touches one or two
-- blocks, and a whole state reads few fields, however many participants there are.
local BLOCK = 64
local RECORD = '%11d%11d%9d%1d'
local WIDTH = 32

local function load_session(key)
  local values = redis.call('HMGET', key, unpack(SCALARS))
  if not values[2] then return nil end
  local session = {key = key, changed = {}, touched = {}, blocks = {}, records = {}}
  for i, name in ipairs(SCALARS) do
    local text = values[i]
    if WORDS[name] then session[name] = text else session[name] = tonumber(text) end
  end
  return session
end

-- Change one scalar; '' in the hash stands for nil.
local function set(session, name, value)
  session[name] = value
  session.changed[name] = true
end

local function participant_id(session, index)
  return redis.call('HGET', session.key, 'id:' .. int(index))
end

local function participant_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'index:' .. id) or nil)
end

local function participant(session, index)
  local record = session.records[index]
  if not record then
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
  end
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

-- A session that is not written yet: ids and first records of participants, in rotation order.
--   participants  a flat list of ids and budgets (ms)
local function new_session(key, participants)
  local session = {key = key, changed = {}, touched = {}, blocks = {}, records = {}, static = {}}
  local static, records = session.static, {}
  local function field(name, value)
    static[#static + 1] = name
    static[#static + 1] = value
  end
  for i = 1, #participants, 2 do
    local index = (i - 1) / 2
    field('id:' .. int(index), participants[i])
    field('index:' .. participants[i], int(index))
    records[index + 1] = record_text({
      time_used_ms = 0, time_remaining_ms = tonumber(participants[i + 1]), cycle_count = 0,
    })
  end
  for number = 0, math.ceil(#records / BLOCK) - 1 do
    local block = table.concat(records, '', number * BLOCK + 1, math.min((number + 1) * BLOCK, #records))
    field('p:' .. int(number), block)
  end
  return session
end
