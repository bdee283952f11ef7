-- A session with a time control: its rules replace those of a plain budget (docs/time-controls.md). An owner is
-- whatever has a budget in the session's mode: a participant or a group. Its main time is the time_remaining_ms of its
-- record; everything else is in its clock, a record of its own (kind 'c').
-- @include _budgets

-- What the letters in a `control` mean. The first part of the text is about the whole control, each other one about a
-- stage (docs/keys.md).
local NAMES = {
  m = 'margin_ms', u = 'charge_unit_ms', l = 'min_charge_ms', f = 'before_move', w = 'warns_in_periods',
  q = 'lag_quota_ms', g = 'lag_per_move_ms',
  n = 'moves', t = 'time_ms', i = 'increment_ms', c = 'cap_ms', d = 'delay_ms', b = 'bronstein_ms', k = 'periods',
  a = 'period_moves', p = 'period_ms', e = 'per_move_ms', h = 'hourglass', r = 'repeats',
}
-- What records can hold, after years of overtime. A longer text would shift all records after it.
local MAX_MS, LEAST_MAIN_MS, LEAST_PERIOD_MS = 99999999999, -99999999999, -9999999999
local CLOCK = '%1d%1d%4d%4d%11d%11d%5d'
local CLOCK_PATTERN = '^(.)(.)(....)(....)(...........)(...........)(.....)'

local function values_of(part)
  local values = {time_ms = nil, increment_ms = nil, moves = nil, period_ms = nil}  -- makes room for these at once
  for letter, digits in string.gmatch(part, '(%l)(%d+)') do values[NAMES[letter]] = tonumber(digits) end
  return values
end

-- The control of an owner; its stages are parsed by stage_of.
local function control_of(session, index)
  local text = session.control
  if string.sub(text, 1, 1) == '*' then  -- owners may have controls of their own
    text = redis.call('HGET', session.key, 'control:' .. int(index)) or string.sub(text, 2)
  end
  local control = session.controls[text]
  if control then return control end
  control = string.byte(text) == 59 and {} or values_of(string.match(text, '^[^;]*'))  -- 59: it begins with a stage
  control.text, control.stages = text, {}
  session.controls[text] = control
  return control
end

-- A stage of a control by its number, from 1; nil if there is none.
local function stage_of(control, number)
  local stage, at = control.stages[number], 0
  if stage then return stage end
  for part in string.gmatch(control.text, ';([^;]*)') do
    at = at + 1
    if at == number then
      stage = values_of(part)
      break
    end
  end
  control.stages[number] = stage
  return stage
end

-- The parsed clock of an owner.
--   stage        the number of its stage, from 1
--   overtime     whether a period or a block runs, or would run
--   moves_left   moves to the next stage; 0 if there is none
--   count        periods left, counting the running one; or moves left in the block, 0 unless overtime
--   period_ms    what is left of the period or block, 0 unless overtime
--   turn_ms      the time used in this turn, up to the last charge
--   lag_left_ms  how much lag may still be compensated (_act)
local function clock_of(session, index)
  local name, at = record_position('c', index)
  local stage, overtime, moves, count, period, turn, lag = string.match(block_of(session, name), CLOCK_PATTERN, at + 1)
  local clock = {
    stage = tonumber(stage), overtime = overtime == '1', moves_left = tonumber(moves), count = tonumber(count),
    period_ms = tonumber(period), turn_ms = tonumber(turn), lag_left_ms = tonumber(lag),
  }
  session.records.c[index] = clock
  return clock
end

local function clock_text(clock)
  return string.format(CLOCK, clock.stage, clock.overtime and 1 or 0, clock.moves_left, clock.count, clock.period_ms,
    clock.turn_ms, clock.lag_left_ms)
end

-- An owner: its kind and index, its record, clock and control, and the stage that it is in.
local function owner_at(session, kind, index)
  local owner = session.owners[index]
  if owner then return owner end
  local clock, control = clock_of(session, index), control_of(session, index)
  owner = {
    kind = kind, index = index, record = record_of(session, kind, index), clock = clock, control = control,
    stage = stage_of(control, clock.stage),
  }
  session.owners[index] = owner
  return owner
end

-- The owner whose clock runs or would run.
local function current_owner(session)
  return owner_at(session, current_budget(session))
end

-- Mark an owner's record and clock as changed: a patch shows both together.
local function mark(session, owner)
  local touched = session.touched
  touched.c = touched.c or {}
  touched.c[owner.index], touched[owner.kind][owner.index] = true, true
end

-- Set an owner's main time, within what a record can hold. Main time above 0 ends overtime.
local function set_main(owner, value)
  local clock = owner.clock
  owner.record.time_remaining_ms = math.max(LEAST_MAIN_MS, math.min(value, MAX_MS))
  if value <= 0 or not clock.overtime then return end
  clock.overtime, clock.period_ms = false, 0
  if owner.stage.period_moves then clock.count = 0 end
end

-- The part of a turn's time that is charged: not a simple delay.
local function chargeable(stage, turn_ms)
  return math.max(0, turn_ms - (stage.delay_ms or 0))
end

-- What one owner of an hourglass uses, the others gain: the sum of all clocks stays the same.
local function share(session, owner, cost)
  local others = (owner.kind == 'p' and session.participant_count or session.group_count) - 1
  local place = 0
  for index = 0, others do
    if index ~= owner.index then
      local gain = math.floor((cost + place) / others)
      if gain ~= 0 then
        local record = touch(session, owner.kind, index)
        record.time_remaining_ms = record.time_remaining_ms + gain
      end
      place = place + 1
    end
  end
end

-- Charge `elapsed` ms of the running turn to the main time, or in overtime to the period or block.
local function charge_owner(session, elapsed)
  local owner = current_owner(session)
  local clock, record, stage = owner.clock, owner.record, owner.stage
  local turn_ms = math.min(clock.turn_ms + elapsed, MAX_MS)
  local cost = chargeable(stage, turn_ms) - chargeable(stage, clock.turn_ms)
  clock.turn_ms = turn_ms
  mark(session, owner)
  if clock.overtime then clock.period_ms = math.max(clock.period_ms - cost, LEAST_PERIOD_MS)
  else record.time_remaining_ms = math.max(record.time_remaining_ms - cost, LEAST_MAIN_MS) end
  if stage.hourglass then share(session, owner, cost) end
end

-- JSON members of an owner's clock, for patches.
local function clock_members(session, kind, index)
  local owner = owner_at(session, kind, index)
  local clock, stage = owner.clock, owner.stage
  local lag = owner.control.lag_quota_ms and ',"lag_left_ms":' .. int(clock.lag_left_ms) or ''
  return string.format(',"stage":%d,"moves_to_next_stage":%s,"periods_left":%s,"period_remaining_ms":%s,'
    .. '"block_moves_left":%s,"turn_ms":%d%s', clock.stage, int_or_null(stage.moves and clock.moves_left),
    int_or_null(stage.periods and clock.count), int_or_null(clock.overtime and clock.period_ms),
    int_or_null(clock.overtime and stage.period_moves and clock.count), clock.turn_ms, lag)
end
