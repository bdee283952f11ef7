-- What a completed move does to a clock with a time control: charge units, bonuses, periods, stages
-- (docs/time-controls.md).
-- @include _budgets

-- The main time after an increment, which does not raise it above the cap.
local function with_increment(main, stage)
  if not stage.increment_ms then return main end
  return math.max(main, math.min(main + stage.increment_ms, stage.cap_ms or math.huge))
end

-- Begin the stage that follows the owner's present one: grant its time and its periods. Returns the main time.
local function enter_stage(session, owner, main)
  local left, clock, control = owner.stage, owner.clock, owner.control
  if not left.repeats then clock.stage = clock.stage + 1 end
  local stage = session.rules.stage_of(control, clock.stage)
  owner.stage, clock.moves_left, clock.count = stage, stage.moves or 0, stage.periods or 0
  clock.overtime, clock.period_ms = false, 0
  if stage.per_move_ms then return stage.per_move_ms end
  if left.per_move_ms then main = 0 end  -- what a move does not use is lost
  -- The next move is granted the delay of its own stage, not that of the one before.
  if control.before_move then main = main - (left.bronstein_ms or 0) + (stage.bronstein_ms or 0) end
  return main + (stage.time_ms or 0)
end

-- Renew the period, or count the move in the block. Returns whether a new block begins.
local function renew_period(clock, stage)
  if stage.periods then clock.period_ms = stage.period_ms end
  if not stage.period_moves then return false end
  clock.count = clock.count - 1
  if clock.count > 0 then return false end
  clock.count, clock.period_ms = stage.period_moves, stage.period_ms
  return true
end

-- Take the lag of a completed move from the owner's quota, which grows with each move. Returns it as a JSON member; ''
-- without lag compensation.
local function use_quota(clock, control, lag_ms)
  if not control.lag_quota_ms then return '' end
  clock.lag_left_ms = math.min(clock.lag_left_ms - lag_ms + (control.lag_per_move_ms or 0), control.lag_quota_ms)
  return ',"lag_ms":' .. int(lag_ms)
end

-- The event after a completed move by which a stage or a block begins.
--   more  its further JSON members
local function entry(event_type, details, more)
  return {type = event_type, details = {
    participant_id = details.participant_id, group_id = details.group_id, remaining_ms = details.remaining_ms,
    more = more,
  }}
end

-- Charge a completed move in whole units, and give its bonuses. Returns the main time, whether a new block and whether a
-- new stage begins.
--   is_free  whether the move is neither charged nor rewarded, as one of an opening book
local function reward(session, owner, is_free)
  local clock, control, stage, main = owner.clock, owner.control, owner.stage, owner.record.time_remaining_ms
  local cost, new_block, new_stage = session.rules.chargeable(stage, clock.turn_ms), false, false
  local unit = control.charge_unit_ms or 1
  local due = is_free and not stage.hourglass and 0 or math.max(control.min_charge_ms or 0, math.floor(cost / unit) * unit)
  if clock.overtime then clock.period_ms = clock.period_ms + cost - due else main = main + cost - due end
  if owner.record.has_expired then return main, false, false end
  if not is_free then
    if clock.overtime then new_block = renew_period(clock, stage) end
    main = (stage.per_move_ms or main) + math.min(clock.turn_ms, stage.bronstein_ms or 0)
    if not control.before_move then main = with_increment(main, stage) end
  end
  if clock.moves_left > 0 then
    clock.moves_left = clock.moves_left - 1
    new_stage = clock.moves_left == 0
    if new_stage then main = enter_stage(session, owner, main) end
  end
  if control.before_move and not is_free then main = with_increment(main, owner.stage) end
  return main, new_block, new_stage
end

-- Count a completed move, which is charged already up to its act, with `reward`. Adds to the details of its event.
-- Returns what follows it at the same instant (see `entry`), or nil.
--   lag_ms  lag that was not charged
local function complete_ruled_move(session, details, lag_ms, is_free)
  local owner = session.rules.current_owner(session)
  local clock, record, spent_ms = owner.clock, owner.record, owner.clock.turn_ms
  local before = record.time_remaining_ms
  if not clock.overtime then before = before + session.rules.chargeable(owner.stage, spent_ms) - spent_ms end
  session.rules.mark(session, owner)
  local main, new_block, new_stage = reward(session, owner, is_free)
  session.rules.set_main(owner, main)
  clock.turn_ms = 0
  details.remaining_ms = int(record.time_remaining_ms)
  details.more = string.format('"spent_ms":%d,"bonus_ms":%d%s', spent_ms, record.time_remaining_ms - before,
    use_quota(clock, owner.control, lag_ms))
  if new_stage then
    return entry('stage_entered', details, string.format('"stage":%d,"moves_to_next_stage":%s', clock.stage,
      int_or_null(owner.stage.moves)))
  end
  if not new_block or not clock.overtime then return nil end
  return entry('block_started', details, string.format('"block_moves_left":%d,"period_remaining_ms":%d', clock.count,
    clock.period_ms))
end
