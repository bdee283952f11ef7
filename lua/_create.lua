-- A session that is not written yet.
-- @include _session

-- Ids and first records of participants, in rotation order, as `static` fields: a flat list of names
-- and values that _commit writes once.
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
  if #records > BLOCK then session.block_tags = {} end
  for number = 0, math.ceil(#records / BLOCK) - 1 do
    local last = math.min((number + 1) * BLOCK, #records)
    session.blocks[number] = table.concat(records, '', number * BLOCK + 1, last)
    field('p:' .. int(number), session.blocks[number])
  end
  return session
end
