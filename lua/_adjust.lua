-- Which budget an adjustment changes, and to what (docs/clock.md).
-- @include _budgets

-- A record has 12 characters for time_remaining_ms. These limits leave one of them free for what is charged later.
local MIN_REMAINING_MS, MAX_REMAINING_MS = -9999999999, 99999999999

local OPERATIONS = {
  add = function(shown, ms) return shown + ms end,
  set = function(_, ms) return ms end,
  at_least = function(shown, ms) return math.max(shown, ms) end,
}

-- The index of a group; nil if there is none with this id.
local function group_index(session, id)
  return tonumber(redis.call('HGET', session.key, 'group_index:' .. id))
end

-- The kind and index of the named budget, or of the current one if none is named; otherwise nil, nil and a reply word.
local function adjusted_budget(session, participant_arg, group_arg)
  local kind, index = current_budget(session)
  if participant_arg ~= '' then
    local named = participant_index(session, participant_arg)
    if not named then return nil, nil, 'unknown_participant' end
    index = kind == 'g' and group_of(session, named) or named
    if kind ~= 'p' and kind ~= 'g' then return nil, nil, 'no_participant_budget' end
  elseif group_arg ~= '' then
    if kind ~= 'g' then return nil, nil, 'no_group_budget' end
    index = group_index(session, group_arg)
    if not index then return nil, nil, 'unknown_group' end
  end
  if not kind then return nil, nil, 'no_budget' end
  return kind, index
end

-- Whether it is the budget that runs or would run.
local function is_current(session, kind, index)
  local current_kind, current_index = current_budget(session)
  return kind == current_kind and index == current_index
end

local function is_running(session, kind, index)
  return session.status == 'running' and is_current(session, kind, index)
end

-- What a budget shows at `now` (ms).
local function shown_remaining(session, kind, index, now)
  local remaining = budget_holder(session, kind, index).time_remaining_ms
  return is_running(session, kind, index) and remaining - (now - session.cycle_started_ms) or remaining
end

-- The target within its limits (ms). The deadline is not moved past not_after_ms. The budget is not taken below 0, or
-- further below 0 than it is, unless it runs and the action on timeout is `notify`.
local function limited_target(session, kind, index, now, target, not_after_ms)
  local shown = shown_remaining(session, kind, index, now)
  if not_after_ms and now + target > not_after_ms then
    target = math.max(not_after_ms - now, math.min(target, shown))
  end
  if session.on_timeout == 'notify' and is_running(session, kind, index) then return target end
  return math.max(target, math.min(0, shown))
end

-- Let the warnings fire again whose thresholds are below the new remaining time of the current budget.
local function rearm_warnings(session, remaining_ms)
  local warned = session.warned
  for i, threshold in ipairs(session.warn_at or {}) do
    local bit = 2 ^ (i - 1)
    if remaining_ms > tonumber(threshold) and math.floor(warned / bit) % 2 == 1 then warned = warned - bit end
  end
  if warned ~= session.warned then set(session, 'warned', warned) end
end
