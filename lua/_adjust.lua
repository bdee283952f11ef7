-- Which budget an adjustment changes, and to what (docs/clock.md).
-- @include _budgets
-- @include _arbiter

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

-- The kind and indexes of the named budgets, or of the current one if none is named; otherwise nil, nil and a reply word.
-- The session's own budget has the index 0 here.
--   named  what the ids are of: 'participant', 'group', or 'target' (whatever has budgets)
--   ids    a list; {'*'} for everybody
local function adjusted_budgets(session, named, ids)
  local kind, current = current_budget(session)
  local of_groups = named == 'group' or named == 'target' and kind == 'g'
  if named == 'group' and kind ~= 'g' then return nil, nil, 'no_group_budget' end
  local indexes, seen = {}, {}
  for _, id in ipairs(ids[1] ~= '*' and ids or {}) do
    local index
    if of_groups then index = group_index(session, id) else index = participant_index(session, id) end
    if not index then return nil, nil, 'unknown_' .. named end
    if kind ~= 'p' and kind ~= 'g' then return nil, nil, 'no_participant_budget' end
    if kind == 'g' and not of_groups then index = group_of(session, index) end
    if not seen[index] then indexes[#indexes + 1] = index end
    seen[index] = true
  end
  if not kind then return nil, nil, 'no_budget' end
  if ids[1] == '*' and kind ~= 's' then
    for index = 0, (kind == 'g' and session.group_count or session.participant_count) - 1 do
      indexes[index + 1] = index
    end
  end
  return kind, #indexes > 0 and indexes or {current or 0}
end

-- Whether it is the budget that runs or would run.
local function is_current(session, kind, index)
  local current_kind, current_index = current_budget(session)
  return kind == current_kind and (kind == 's' or index == current_index)
end

local function is_running(session, kind, index)
  return session.status == 'running' and is_current(session, kind, index)
end

-- What a budget shows at `now` (ms). A clock with a time control is charged up to `now`.
local function shown_remaining(session, kind, index, now)
  local remaining = budget_holder(session, kind, index).time_remaining_ms
  return is_running(session, kind, index) and remaining - (now - session.cycle_started_ms) or remaining
end

-- The target within its limits (ms). What is shown does not reach past not_after_ms. The budget is not taken below 0, or
-- further below 0 than it is, unless it runs, not in a period or block, and the action on timeout is `notify`.
local function limited_target(session, kind, index, now, target, not_after_ms)
  local shown = shown_remaining(session, kind, index, now)
  if not_after_ms and now + target > not_after_ms then
    target = math.max(not_after_ms - now, math.min(target, shown))
  end
  local in_period = session.rules and session.rules.owner_at(session, kind, index).clock.overtime
  if session.on_timeout == 'notify' and is_running(session, kind, index) and not in_period then return target end
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

-- Change what one owner has. Returns the target and the change (ms); otherwise nil, nil and a reply word.
--   change  {operation, ms, not_after_ms or nil, clock: changes for change_clock}
local function adjust_budget(session, kind, index, now, change)
  local before = shown_remaining(session, kind, index, now)
  local word = session.rules and change_clock(session, kind, index, change.clock)
  if word then return nil, nil, word end
  local shown = shown_remaining(session, kind, index, now)
  local wanted = OPERATIONS[change.operation](shown, change.ms)
  local target = limited_target(session, kind, index, now, wanted, change.not_after_ms)
  if target < MIN_REMAINING_MS or target > MAX_REMAINING_MS then return nil, nil, 'adjustment_too_large' end
  local left = target
  if session.rules then
    local owner = session.rules.owner_at(session, kind, index)
    session.rules.mark(session, owner)
    session.rules.set_main(owner, target)
    left = session.rules.left_until_flag(owner)
  else
    set_remaining(session, kind, index, budget_holder(session, kind, index).time_remaining_ms + target - shown)
  end
  if left > 0 and has_crossed(session, kind, index) then set_crossed(session, kind, index, false) end
  if is_current(session, kind, index) then
    rearm_warnings(session, session.rules and session.rules.warned_left(session) or target)
  end
  return target, target - before
end

-- Change what the owners at indexes have. Returns the details of the event; otherwise nil and a reply word.
--   by_id   whether the event has the changes by the ids of their owners
--   change  as adjust_budget takes it
local function adjust_budgets(session, kind, indexes, by_id, now, change)
  local details, parts = {}, {}
  for _, index in ipairs(indexes) do
    local target, added, word = adjust_budget(session, kind, index, now, change)
    if word then return nil, word end
    local id = kind == 'p' and participant_id(session, index) or kind == 'g' and group_id(session, index)
    if by_id and id then
      parts[#parts + 1] = quote(id) .. ':{"remaining_ms":' .. int(target) .. ',"adjusted_ms":' .. int(added) .. '}'
    else
      details.remaining_ms, details.adjusted_ms = int(target), int(added)
      details.participant_id = kind == 'p' and quote(id) or nil
      details.group_id = kind == 'g' and quote(id) or nil
    end
  end
  local members = {string.sub(object(CLOCK_CHANGES, change_texts(change.clock)), 2, -2)}
  if parts[1] then table.insert(members, 1, '"adjusted":{' .. table.concat(parts, ',') .. '}') end
  if members[#members] == '' then members[#members] = nil end
  if members[1] then details.more = table.concat(members, ',') end
  return details
end

-- Forget how the last turns began: an adjustment is not taken back with them (_takebacks).
local function forget_turns(session)
  if session.takebacks then session.turns, session.changed.turns = {}, true end
end
