-- A session in memory: loaded from its hash and changed here; only _write writes it.
-- @include _json
-- @include _records

-- The names of the values in the field `scalars`, in order (docs/keys.md). A test compares them with Python's list.
--   look_ms     the next instant at which something is due; the session's score among the deadlines
--   warned      a set of bits, one for each threshold of warn_at that has fired
--   crossed     1 if the session's own budget has crossed zero
--   idling      1 while idle time counts; nil while it does not, or if an earlier release wrote the session last
--   unattended  cycles that have timed out since the last client command
local SCALARS = {
  'epoch', 'version', 'status', 'sync_mode', 'participant_count', 'group_count', 'increment_ms',
  'idle_timeout_ms', 'turn', 'cycle_count', 'time_used_ms', 'time_remaining_ms', 'cycle_started_ms',
  'session_started_ms', 'session_completed_ms', 'created_ms', 'updated_ms', 'metadata_version',
  'on_timeout', 'idle_ms', 'look_ms', 'time_per_cycle_ms', 'max_cycles', 'warned', 'crossed',
  'idling', 'unattended',
}
-- Functions of the server are loaded without Lua's library, so this is no string.rep.
local NINE_WORDS = '(%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*) (%S*)'
local ALL_WORDS = NINE_WORDS .. ' ' .. NINE_WORDS .. ' ' .. NINE_WORDS

-- The place of each scalar by its name.
local function places_of(names)
  local places = {}
  for place = 1, #names do places[names[place]] = place end
  return places
end

local PLACES = places_of(SCALARS)
local LIVE = {pending = true, running = true, paused = true}

-- The list of words in a text; nil without a text.
local function split(text)
  if not text then return nil end
  local words = {}
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  return words
end

-- Read the field `rules`: how many cycles can be taken back, and the time control; each may be missing.
local function read_rules(session, rules)
  local takebacks, control = string.match(rules, '^(%d*)|(.*)$')
  session.takebacks = tonumber(takebacks)
  session.control = control ~= '' and control or nil
end

-- The texts of all scalars. An earlier release may have written fewer of them.
local function texts_of(scalars)
  local texts = {string.match(scalars, ALL_WORDS)}
  if not texts[1] then texts = {string.match(scalars .. string.rep(' ', #SCALARS), ALL_WORDS)} end
  return texts
end

-- Load what most commands need, in one read; nil if there is no session. A session with more than one block has
-- block_tags: for each block the commit that wrote it last, as version.instant. A block is not sent to a caller that
-- has it cached under the same tag. The ids are those of the first two participants: most sessions have no others.
--   fields  what this read has returned, if the limits were checked with it
local function read_session(key, fields)
  local scalars, warn_at, tags, metadata, chain, participants, groups, clocks, rules, first, second = unpack(fields
    or redis.call('HMGET', key,
      'scalars', 'warn_at', 'block_tags', 'metadata', 'chain', 'p:0', 'g:0', 'c:0', 'rules', 'id:0', 'id:1'))
  if not scalars then return nil end
  local session = {
    key = key, scalars = scalars, metadata = metadata, chain = chain, warn_at = split(warn_at),
    block_tags = split(tags), changed = {version = nil, updated_ms = nil, look_ms = nil, turn = nil, warned = nil},
    blocks = {['p:0'] = participants or nil, ['g:0'] = groups or nil, ['c:0'] = clocks or nil},
    touched = {p = {}, g = {}}, records = {p = {}, g = {}}, membership = {},
    ids = {[0] = first or nil, [1] = second or nil},
    texts = texts_of(scalars),
    -- A table grows in steps. This makes room for all scalars at once, as above for what a switch changes.
    epoch = nil, version = nil, status = nil, sync_mode = nil, participant_count = nil, group_count = nil, turn = nil,
    cycle_count = nil, increment_ms = nil, created_ms = nil, updated_ms = nil, metadata_version = nil, idle_ms = nil,
    cycle_started_ms = nil, session_started_ms = nil, look_ms = nil, idle_timeout_ms = nil, on_timeout = nil,
  }
  local texts = session.texts
  for i = 1, #SCALARS do  -- ipairs() takes a third longer
    local text = texts[i]
    if text ~= '' then session[SCALARS[i]] = tonumber(text) or text end
  end
  if rules then read_rules(session, rules) end
  return session
end

-- Change one field of the session.
local function set(session, name, value)
  session[name] = value
  session.changed[name] = true
end

local function text_of(value)
  if type(value) == 'number' then return int(value) end
  return value or ''
end

-- Write the changed values into `scalars`.
local function update_scalars(session)
  local texts = session.texts
  for name in pairs(session.changed) do
    local place = PLACES[name]
    if place then texts[place] = text_of(session[name]) end
  end
  session.scalars = table.concat(texts, ' ')
end

local function participant_id(session, index)
  local id = session.ids[index] or redis.call('HGET', session.key, 'id:' .. int(index))
  session.ids[index] = id
  return id
end

-- The values of the fields that a prefix and each of the indexes name.
local function fields_of(session, prefix, indexes)
  local names = {}
  for i, index in ipairs(indexes) do names[i] = prefix .. int(index) end
  return redis.call('HMGET', session.key, unpack(names))
end

-- The ids by index, with those of all participants in a set of indexes: what is not known yet is read at once.
local function ids_with(session, indexes)
  local known, missing = session.ids, nil
  for index in pairs(indexes) do
    if not known[index] then
      missing = missing or {}
      missing[#missing + 1] = index
    end
  end
  if missing then
    for i, id in ipairs(fields_of(session, 'id:', missing)) do known[missing[i]] = id end
  end
  return known
end

local function group_id(session, index)
  return redis.call('HGET', session.key, 'group_id:' .. int(index))
end

-- The index of a participant; nil if there is none with this id.
local function participant_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'index:' .. id))
end

-- The group of a participant, and the participant's place among its members, from 1. nil in a session without groups.
local function group_of(session, index)
  if session.group_count == 0 or not index then return nil end
  local known = session.membership[index]
  if not known then
    known = split(redis.call('HGET', session.key, 'group_of:' .. int(index)))
    session.membership[index] = known
  end
  return tonumber(known[1]), tonumber(known[2])
end

local function member_count(session, group)
  return tonumber(redis.call('HGET', session.key, 'members:' .. int(group)))
end

-- The index of the participant at a place, from 1, in a group.
local function member_of(session, group, place)
  return tonumber(redis.call('HGET', session.key, 'member:' .. int(group) .. ':' .. int(place)))
end

-- The index of the active participant; nil if none is active, as in pending and finished sessions.
local function active(session)
  if session.status == 'running' or session.status == 'paused' then return session.turn end
  return nil
end

local function active_id(session)
  local index = active(session)
  return index and participant_id(session, index) or nil
end
