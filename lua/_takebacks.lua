-- Taking cycles back. A session with `takebacks` keeps, in the field `turns`, copies of the mover's records from the start
-- of the present turn and of the last turns before it, the newest first (docs/keys.md).
-- @include _run

local TURN = '^(%d+) (%d+) ([^\n]*)$'

-- The owner of a participant's clock: its kind and index.
local function owner_of(session, index)
  local kind = MODES[session.sync_mode].budget
  if kind == 'g' then return kind, (group_of(session, index)) end
  return kind, index
end

-- The text of a record as it is now, changed or not.
local function text_at(session, kind, index)
  local record = session.records[kind][index]
  if record then return kind == 'c' and session.rules.clock_text(record) or record_text(record) end
  local name, at = record_position(kind, index)
  return string.sub(block_of(session, name), at + 1, at + WIDTH[kind])
end

-- The start of the present turn as text: cycle count, mover, and the records that the turn may change, which are of the
-- mover, its group, its clock, and in an hourglass of everybody.
local function turn_text(session)
  local kind, owner = owner_of(session, session.turn)
  local texts = {text_at(session, 'p', session.turn)}
  if kind == 'g' then  -- with whose turn it was before in this group
    local record = record_of(session, 'g', owner)
    local place = record.count
    record.count = session.last_place or place
    texts[#texts + 1] = record_text(record)
    record.count = place
  end
  if session.rules then texts[#texts + 1] = text_at(session, 'c', owner) end
  if session.rules and session.rules.current_owner(session).stage.hourglass then
    local count = kind == 'g' and session.group_count or session.participant_count
    for index = 0, count - 1 do texts[#texts + 1] = text_at(session, kind, index) end
  end
  return int(session.cycle_count) .. ' ' .. int(session.turn) .. ' ' .. table.concat(texts)
end

local function kept_turns(session)
  if session.turns then return session.turns end
  local turns = {}
  for turn in string.gmatch(redis.call('HGET', session.key, 'turns') or '', '[^\n]+') do turns[#turns + 1] = turn end
  session.turns = turns
  return turns
end

-- Note the start of a turn.
local function note_turn(session)
  local turns = kept_turns(session)
  table.insert(turns, 1, turn_text(session))
  turns[session.takebacks + 2] = nil
  session.changed.turns = true
end

-- Replace a record by its text of an earlier turn.
local function restore_record(session, kind, index, text)
  local owner_kind = MODES[session.sync_mode].budget
  local name, at = record_position(kind, index)
  local block = block_of(session, name)
  session.blocks[name] = string.sub(block, 1, at) .. text .. string.sub(block, at + WIDTH[kind] + 1)
  session.records[kind][index] = nil
  if session.owners then session.owners[index] = nil end
  if kind == 'c' then session.rules.mark(session, session.rules.owner_at(session, owner_kind, index))
  else touch(session, kind, index) end
end

-- Take the last `cycles` turns and the present one back to the start of the first of them.
local function take_back(session, cycles)
  local turns, count, turn = kept_turns(session), nil, nil
  for i = 1, cycles + 1 do
    local texts
    count, turn, texts = string.match(turns[i], TURN)
    local index = tonumber(turn)
    local kind, owner = owner_of(session, index)
    local at = 1
    local function restore(of, number)
      restore_record(session, of, number, string.sub(texts, at, at + WIDTH[of] - 1))
      at = at + WIDTH[of]
    end
    if has_crossed(session, kind, owner) then set_crossed(session, kind, owner, false) end
    restore('p', index)
    if kind == 'g' then restore('g', owner) end
    if session.rules then restore('c', owner) end
    if has_crossed(session, kind, owner) then set_crossed(session, kind, owner, true) end
    for other = 0, (#texts - at + 1) / WIDTH.p - 1 do restore(kind, other) end
  end
  for _ = 1, cycles do table.remove(turns, 1) end
  session.changed.turns = true
  set(session, 'turn', tonumber(turn))
  set(session, 'cycle_count', tonumber(count))
  local group, place = group_of(session, session.turn)
  if group then touch(session, 'g', group).count = place end
  session.wants_snapshot = true  -- it has all that cannot be told from the patch
end
