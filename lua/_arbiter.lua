-- What an arbiter may change in a clock with a time control, besides its main time (docs/time-controls.md).
-- @include _budgets

local CLOCK_CHANGES = {
  'stage', 'moves_to_next_stage', 'periods_left', 'period_remaining_ms', 'block_moves_left',
}

-- Change an owner's clock. Returns a reply word if a change makes no sense in its stage, otherwise nil.
--   changes  by the names in CLOCK_CHANGES; each may be nil
local function change_clock(session, kind, index, changes)
  if not next(changes) then return nil end
  local owner = session.rules.owner_at(session, kind, index)
  local clock = owner.clock
  session.rules.mark(session, owner)
  if changes.stage then
    local stage = session.rules.stage_of(owner.control, changes.stage)
    if not stage then return 'no_such_stage' end
    owner.stage, clock.stage = stage, changes.stage
    clock.moves_left, clock.count = stage.moves or 0, stage.periods or 0
    clock.overtime, clock.period_ms = false, 0
  end
  local stage = owner.stage
  if changes.moves_to_next_stage then
    if changes.moves_to_next_stage > (stage.moves or 0) then return 'no_moves' end
    clock.moves_left = changes.moves_to_next_stage
  end
  if changes.periods_left then
    if changes.periods_left > (stage.periods or 0) then return 'no_periods' end
    clock.count = changes.periods_left
    if has_crossed(session, kind, index) then  -- a period that is given back is a full one
      clock.overtime, clock.period_ms, owner.record.time_remaining_ms = true, stage.period_ms, 0
    end
  end
  if changes.period_remaining_ms then
    if not clock.overtime then return 'no_period' end
    clock.period_ms = changes.period_remaining_ms
  end
  if changes.block_moves_left then
    if not clock.overtime or changes.block_moves_left > (stage.period_moves or 0) then return 'no_block' end
    clock.count = changes.block_moves_left
  end
  return nil
end

-- The changes as JSON texts, by name.
local function change_texts(changes)
  local texts = {}
  for name, value in pairs(changes) do texts[name] = int(value) end
  return texts
end
