-- Records of a session: the numbers of each participant, group and clock, in the blocks of its hash (docs/keys.md).
-- @include _json

-- The totals of participants ('p') and groups ('g') are fixed-width records in blocks of 128, and so are the clocks of a
-- time control ('c', _time_control). So a switch changes few fields, and reading a whole state takes few fields, however
-- many participants there are.
local BLOCK = 128
local WIDTH = {p = 34, g = 34, c = 37}
local RECORD = '%12d%12d%9d%1d'
local RECORD_PATTERN = '^(............)(............)(.........)(.)'

-- The name of a block's field. Most sessions have only block 0, whose name needs no formatting.
local function block_name(kind, number)
  if number == 0 then return kind == 'p' and 'p:0' or kind == 'g' and 'g:0' or 'c:0' end
  return kind .. ':' .. int(number)
end

-- The names of all blocks: of participants, groups, and the clocks of a time control; the order of a reply.
local function block_names(session)
  local names = session.block_names
  if names then return names end
  names = {}
  for number = 0, math.ceil(session.participant_count / BLOCK) - 1 do names[#names + 1] = block_name('p', number) end
  for number = 0, math.ceil(session.group_count / BLOCK) - 1 do names[#names + 1] = block_name('g', number) end
  if session.control then
    local owners = session.group_count > 0 and session.group_count or session.participant_count
    for number = 0, math.ceil(owners / BLOCK) - 1 do names[#names + 1] = block_name('c', number) end
  end
  session.block_names = names
  return names
end

local function block_of(session, name)
  local block = session.blocks[name] or redis.call('HGET', session.key, name)
  session.blocks[name] = block
  return block
end

-- The name of a record's block, and the record's offset in it, from 0.
local function record_position(kind, index)
  return block_name(kind, math.floor(index / BLOCK)), (index % BLOCK) * WIDTH[kind]
end

-- The parsed record of a participant or group. `count` is a participant's cycle_count. For a group it is the place of
-- the member that last had the turn, or 0.
local function record_of(session, kind, index)
  local record = session.records[kind][index]
  if record then return record end
  local name, at = record_position(kind, index)
  local used, remaining, count, expired = string.match(block_of(session, name), RECORD_PATTERN, at + 1)
  record = {
    time_used_ms = tonumber(used), time_remaining_ms = tonumber(remaining), count = tonumber(count),
    has_expired = expired == '1',
  }
  session.records[kind][index] = record
  return record
end

-- Return a record and mark it as changed. Participants are also marked when they become active or inactive.
local function touch(session, kind, index)
  session.touched[kind][index] = true
  return record_of(session, kind, index)
end

local function record_text(record)
  return string.format(RECORD, record.time_used_ms, record.time_remaining_ms, record.count,
    record.has_expired and 1 or 0)
end
