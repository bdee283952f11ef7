-- How a period or a block begins (docs/time-controls.md).
-- @include _cycles
-- @include _commit

-- Begin the next period or the block of the owner whose clock runs. What exceeds the main time, or the period before, is
-- charged to it. Returns the event's type and details.
local function pass_boundary(session)
  local owner, event_type = session.rules.current_owner(session), 'period_lost'
  local clock, stage = owner.clock, owner.stage
  session.rules.mark(session, owner)
  if clock.overtime then
    clock.count = clock.count - 1
    clock.period_ms = clock.period_ms + stage.period_ms
  else
    event_type = stage.periods and 'period_started' or 'block_started'
    clock.overtime = true
    clock.period_ms = math.max(stage.period_ms + owner.record.time_remaining_ms, -9999999999)
    owner.record.time_remaining_ms = 0
    if stage.period_moves then clock.count = stage.period_moves end
  end
  return event_type, {
    remaining_ms = '0',
    more = string.format('"%s":%d,"period_remaining_ms":%d', stage.periods and 'periods_left' or 'block_moves_left',
      clock.count, clock.period_ms),
  }
end

-- Commit it. It is a new run of the clock, so that no run has time of two phases.
local function begin_period(session, keys, call, now, at)
  local elapsed = charge(session, at)
  start_clock(session, at)
  local event_type, details = pass_boundary(session)
  if session.rules.current_owner(session).control.warns_in_periods then reset_warnings(session) end
  commit(session, keys, call, now, at, event_type, with_active_ids(session, details), 'system', elapsed)
end
