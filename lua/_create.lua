-- Builds a new session, which _write writes.
-- @include _session

-- A new session. Its `static` has the fields that _write writes once: ids, groups, first records and what parts has, in
-- rotation order, as a flat list of names and values.
--   static             further fields: a flat list of names and values, which is extended
--   participant_count  number of participants
--   parts              a list: field `rules` (docs/keys.md) or '', clocks of all owners or '', number of owners with
--                      their own control; then index and control of each such owner; id, budget (ms) and group index or
--                      '' of each participant; id and budget (ms) of each group
local function new_session(key, static, participant_count, parts)
  local rules, clocks, own_count = unpack(parts, 1, 3)
  local participants_at = 4 + 2 * own_count
  local groups_at = participants_at + 3 * participant_count
  assert(#parts >= groups_at - 1, 'an argument is missing')
  local participants, groups = {unpack(parts, participants_at, groups_at - 1)}, {unpack(parts, groups_at)}
  local session = {
    key = key, changed = {}, touched = {p = {}, g = {}}, blocks = {}, records = {p = {}, g = {}}, static = static,
    ids = {}, membership = {}, texts = {}, participant_count = participant_count, group_count = #groups / 2,
  }
  for i = 1, #SCALARS do session.texts[i] = '' end
  local members, blocks = {}, {}
  local function field(name, value)
    static[#static + 1] = name
    static[#static + 1] = value
  end
  local function first_record(kind, index, budget)
    local name = record_position(kind, index)
    blocks[name] = blocks[name] or {}
    blocks[name][#blocks[name] + 1] = record_text({time_used_ms = 0, time_remaining_ms = tonumber(budget), count = 0})
  end
  for i = 1, #groups, 2 do
    local index = (i - 1) / 2
    members[index] = 0
    field('group_id:' .. int(index), groups[i])
    field('group_index:' .. groups[i], int(index))
    first_record('g', index, groups[i + 1])
  end
  for i = 1, #participants, 3 do
    local index, group = (i - 1) / 3, tonumber(participants[i + 2])
    field('id:' .. int(index), participants[i])
    field('index:' .. participants[i], int(index))
    first_record('p', index, participants[i + 1])
    if group then
      members[group] = members[group] + 1
      field('group_of:' .. int(index), int(group) .. ' ' .. int(members[group]))
      field('member:' .. int(group) .. ':' .. int(members[group]), int(index))
    end
  end
  for index, count in pairs(members) do field('members:' .. int(index), int(count)) end
  for name, records in pairs(blocks) do
    session.blocks[name] = table.concat(records)
    field(name, session.blocks[name])
  end
  if #block_names(session) > 1 then session.block_tags = {} end
  if rules == '' then return session end
  field('rules', rules)
  read_rules(session, rules)
  session.block_names = nil  -- there are more with a time control
  for at = 1, #clocks, BLOCK * WIDTH.c do
    local name = record_position('c', (at - 1) / WIDTH.c)
    session.blocks[name] = string.sub(clocks, at, at + BLOCK * WIDTH.c - 1)
    field(name, session.blocks[name])
  end
  for i = 4, participants_at - 1, 2 do field('control:' .. parts[i], parts[i + 1]) end
  return session
end
