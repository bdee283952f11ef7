-- Which budget an adjustment changes, and to what (docs/clock.md).
-- @include _modes

local LEAST_REMAINING, MOST_REMAINING = -9999999999, 99999999999  -- what a record has room for, and some to spare

local ADJUST = {
  add = function(shown, ms) return shown + ms end,
  set = function(_, ms) return ms end,
  at_least = function(shown, ms) return math.max(shown, ms) end,
}

-- Returns the kind and index of the named budget, or of the one that runs or would run; or a refusing word.
local function adjusted_budget(session, participant_arg, group_arg)
  local kind, index = budget_of(session)
  if participant_arg ~= '' then
    local named = participant_index(session, participant_arg)
    if not named then return nil, nil, 'unknown_participant' end
    index = kind == 'g' and group_of(session, named) or named
    if kind ~= 'p' and kind ~= 'g' then return nil, nil, 'no_participant_budget' end
  elseif group_arg ~= '' then
    if session.sync_mode ~= 'per_group' then return nil, nil, 'no_group_budget' end
    index = group_index(session, group_arg)
    if not index then return nil, nil, 'unknown_group' end
  end
  if not kind then return nil, nil, 'no_budget' end
  return kind, index
end

-- Whether it is the budget that runs, or would run.
local function is_current(session, kind, index)
  local current, place = budget_of(session)
  return kind == current and index == place
end

local function runs(session, kind, index)
  return session.status == 'running' and is_current(session, kind, index)
end

-- What a budget shows at `now`.
local function shown_by(session, kind, index, now)
  local remaining = holder_of(session, kind, index).time_remaining_ms
  return runs(session, kind, index) and remaining - (now - session.cycle_started_ms) or remaining
end

-- What a budget is to show: not below 0, or further below it, but for overtime; and never so much that its
-- deadline moves past not_after_ms.
local function adjusted_to(session, kind, index, now, target, not_after_ms)
  local shown = shown_by(session, kind, index, now)
  if not_after_ms and now + target > not_after_ms then
    target = math.max(not_after_ms - now, math.min(target, shown))
  end
  if session.on_timeout == 'notify' and runs(session, kind, index) then return target end
  return math.max(target, math.min(0, shown))
end

-- Let thresholds fire again that the running clock, or the one that would run, was lifted above.
local function renew_warnings(session, remaining_ms)
  local warned = session.warned
  for i, threshold in ipairs(session.warn_at or {}) do
    local bit = 2 ^ (i - 1)
    if remaining_ms > tonumber(threshold) and math.floor(warned / bit) % 2 == 1 then warned = warned - bit end
  end
  if warned ~= session.warned then set(session, 'warned', warned) end
end
