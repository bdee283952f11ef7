-- When a clock with a time control runs out: of its main time, of a period, of everything (docs/time-controls.md).
-- @include _time_control

-- In how many ms of running an account with `left` ms runs out. What a move is charged is a whole number of units, and
-- not less than the least charge.
local function runs_out_in(owner, left)
  local stage, control, turn_ms = owner.stage, owner.control, owner.clock.turn_ms
  local total = left + chargeable(stage, turn_ms)
  local least, unit = control.min_charge_ms, control.charge_unit_ms or 1
  if least and total <= least then return 0 end
  local needed = math.max(0, math.ceil(total / unit) * unit)
  return math.max(0, needed + (stage.delay_ms or 0) - turn_ms)
end

-- What is left of the phase: of the main time, the period or the block.
local function left_in_phase(owner)
  return owner.clock.overtime and owner.clock.period_ms or owner.record.time_remaining_ms
end

-- The same at an instant, if the clock runs.
local function shown_in_phase(session, at)
  local owner = current_owner(session)
  local left = left_in_phase(owner)
  if session.status ~= 'running' then return left end
  local turn_ms = owner.clock.turn_ms
  return left - (chargeable(owner.stage, turn_ms + at - session.cycle_started_ms) - chargeable(owner.stage, turn_ms))
end

-- The main time of the owner whose clock runs or would run, at an instant.
local function main_at(session, at)
  local owner = current_owner(session)
  return owner.clock.overtime and owner.record.time_remaining_ms or shown_in_phase(session, at)
end

-- What an owner has left until the flag (ms), without the margin; and how many periods or blocks are still to come.
local function left_until_flag(owner)
  local clock, stage, left = owner.clock, owner.stage, left_in_phase(owner)
  if not stage.period_ms then return left, 0 end
  local to_come = (stage.periods and clock.count or 1) - (clock.overtime and 1 or 0)
  return left + to_come * stage.period_ms, to_come
end

-- The instants (ms) of the flag, and of the boundary before it, nil if there is none. At the flag, the owner has neither
-- main time nor periods nor margin left. At a boundary, the main time or a period runs out, and another period or a
-- block follows. Both are nil if the clock is stopped or has run out already.
local function next_due(session)
  if session.status ~= 'running' then return nil, nil end
  local owner = current_owner(session)
  if owner.record.has_expired then return nil, nil end
  local left, to_come = left_until_flag(owner)
  local boundary
  if to_come > 0 then
    boundary = math.max(session.cycle_started_ms + runs_out_in(owner, left_in_phase(owner)), session.updated_ms)
  end
  left = left + (owner.control.margin_ms or 0)
  return math.max(session.cycle_started_ms + runs_out_in(owner, left), session.updated_ms), boundary
end

-- What is left as warnings count it: of the main time, or in overtime of the period or block if these warn, too.
local function warned_left(session)
  local owner = current_owner(session)
  local in_period = owner.clock.overtime and owner.control.warns_in_periods
  return in_period and owner.clock.period_ms or owner.record.time_remaining_ms
end

-- The instant (ms) at which that is at 0, and what is left of it now; nil if no warning can fire.
local function warned_zero_at(session)
  local owner = current_owner(session)
  if session.status ~= 'running' or owner.clock.overtime and not owner.control.warns_in_periods then return nil end
  local delay, left = math.max(0, (owner.stage.delay_ms or 0) - owner.clock.turn_ms), warned_left(session)
  return session.cycle_started_ms + delay + left, left
end
