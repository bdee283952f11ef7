-- A session in memory: loaded from its hash, changed here, written by _commit alone.
-- @include _json

-- What is small and changes, in the order of the text `scalars`; syncapp/domain/session_layout.py reads them in this order.
--   look_ms  when something is due by itself, as among the deadlines
--   warned   a set of bits, one for each threshold of warn_at that has fired
--   idling   1 while idle time counts; nil while it does not, or if an earlier release wrote it last
--   unattended  cycles that have timed out since the last client's command
local SCALARS = {
  'epoch', 'version', 'status', 'sync_mode', 'participant_count', 'group_count', 'increment_ms',
  'idle_timeout_ms', 'turn', 'cycle_count', 'time_used_ms', 'time_remaining_ms', 'cycle_started_ms',
  'session_started_ms', 'session_completed_ms', 'created_ms', 'updated_ms', 'metadata_version',
  'on_timeout', 'idle_ms', 'look_ms', 'time_per_cycle_ms', 'max_cycles', 'warned', 'crossed',
  'idling', 'unattended',
}
-- A pattern of all scalars, made from a text of nine: string.rep of one would take a large part of a load's time.
-- Scalars written by an earlier release may be fewer, and are padded.
local NINE = '([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) ([^ ]*) '
local PADDING = '                           '
local LIVE = {pending = true, running = true, paused = true}

-- Totals of participants ('p') and groups ('g') stand in blocks of fixed-width records, so that a
-- switch touches few fields, and a whole state reads few, however many participants there are.
local BLOCK = 128
local WIDTH = 34
local RECORD = '%12d%12d%9d%1d'

-- A list of words; nil when there is no text.
local function split(text)
  if not text then return nil end
  local words = {}
  for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  return words
end

-- One read brings all that most commands need. With more than one block, `block_tags` says which commit each
-- was last written by, as version.instant: a caller that has blocks of the same tags is not sent them again.
local function load_session(key)
  local scalars, warn_at, tags, metadata, chain, people, groups =
    unpack(redis.call('HMGET', key, 'scalars', 'warn_at', 'block_tags', 'metadata', 'chain', 'p:0', 'g:0'))
  if not scalars then return nil end
  local session = {
    key = key, scalars = scalars, metadata = metadata, chain = chain, warn_at = split(warn_at),
    block_tags = split(tags), blocks = {['p:0'] = people or nil, ['g:0'] = groups or nil}, changed = {},
    touched = {p = {}, g = {}}, records = {p = {}, g = {}}, ids = {}, membership = {},
    texts = {string.match(scalars .. PADDING, NINE .. NINE .. NINE)},
  }
  for i, text in ipairs(session.texts) do
    if text ~= '' then session[SCALARS[i]] = tonumber(text) or text end
  end
  return session
end

-- Change one field; `scalars` holds '' for nil.
local function set(session, name, value)
  session[name] = value
  session.changed[name] = true
end

local function text_of(value)
  if type(value) == 'number' then return int(value) end
  return value or ''
end

-- Put what was changed into `scalars`.
local function renew_scalars(session)
  local texts, changed = session.texts, session.changed
  for i, name in ipairs(SCALARS) do
    if changed[name] then texts[i] = text_of(session[name]) end
  end
  session.scalars = table.concat(texts, ' ')
end

local function participant_id(session, index)
  local id = session.ids[index] or redis.call('HGET', session.key, 'id:' .. int(index))
  session.ids[index] = id
  return id
end

local function group_id(session, index)
  return redis.call('HGET', session.key, 'group_id:' .. int(index))
end

-- Places by id; nil when there is none of this id.
local function participant_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'index:' .. id))
end

local function group_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'group_index:' .. id))
end

-- The group of a participant, and its place among that group's members, from 1; nil in sessions without groups.
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

-- The index of a group's member by its place, from 1.
local function member_of(session, group, place)
  return tonumber(redis.call('HGET', session.key, 'member:' .. int(group) .. ':' .. int(place)))
end

-- Several fields, named by a prefix and each of a list of indexes.
local function fields_of(session, prefix, indexes)
  local names = {}
  for i, index in ipairs(indexes) do names[i] = prefix .. int(index) end
  return redis.call('HMGET', session.key, unpack(names))
end

-- The name of a kind's block; most sessions have no other than the first.
local function block_name(kind, number)
  if number == 0 then return kind == 'p' and 'p:0' or 'g:0' end
  return kind .. ':' .. int(number)
end

-- Blocks of participants, then blocks of groups: the order of a reply.
local function block_names(session)
  local names = session.block_names
  if names then return names end
  names = {}
  for number = 0, math.ceil(session.participant_count / BLOCK) - 1 do names[#names + 1] = block_name('p', number) end
  for number = 0, math.ceil(session.group_count / BLOCK) - 1 do names[#names + 1] = block_name('g', number) end
  session.block_names = names
  return names
end

local function block_of(session, name)
  local block = session.blocks[name] or redis.call('HGET', session.key, name)
  session.blocks[name] = block
  return block
end

-- A record's block, and where in it the record begins.
local function place_of(kind, index)
  return block_name(kind, math.floor(index / BLOCK)), (index % BLOCK) * WIDTH
end

-- count is a participant's cycle_count; for a group, the place of the member whose turn it was last, 0 at first.
local function record_of(session, kind, index)
  local record = session.records[kind][index]
  if record then return record end
  local name, at = place_of(kind, index)
  local block = block_of(session, name)
  record = {
    time_used_ms = tonumber(string.sub(block, at + 1, at + 12)),
    time_remaining_ms = tonumber(string.sub(block, at + 13, at + 24)),
    count = tonumber(string.sub(block, at + 25, at + 33)),
    has_expired = string.sub(block, at + 34, at + 34) == '1',
  }
  session.records[kind][index] = record
  return record
end

-- Say that a record, or whether it is active, has changed; returns the record.
local function touch(session, kind, index)
  session.touched[kind][index] = true
  return record_of(session, kind, index)
end

local function record_text(record)
  return string.format(RECORD, record.time_used_ms, record.time_remaining_ms, record.count,
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
