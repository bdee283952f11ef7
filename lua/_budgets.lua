-- Budgets, and the instants at which they cause warnings and timeouts (docs/clock.md). A budget is identified by its
-- kind ('p' participant, 'g' group, 's' session) and, for participants and groups, an index.
-- @include _session
-- @include _modes

-- The kind and index of the budget that runs or would run; nil if there is none. Before the start, it is that of the
-- first participant.
local function current_budget(session)
  local kind = MODES[session.sync_mode].budget
  if kind == 'p' then return kind, session.turn or 0 end
  if kind == 'g' then return kind, (group_of(session, session.turn or 0)) end
  return session.time_remaining_ms and kind or nil
end

-- The table that has the budget's time_remaining_ms: the session itself or a record.
local function budget_holder(session, kind, index)
  if kind == 's' then return session end
  return record_of(session, kind, index)
end

local function set_remaining(session, kind, index, value)
  if kind == 's' then set(session, 'time_remaining_ms', value)
  else touch(session, kind, index).time_remaining_ms = value end
end

-- Whether the budget has crossed zero and has not been raised above it since.
local function has_crossed(session, kind, index)
  if kind == 's' then return session.crossed == 1 end
  return record_of(session, kind, index).has_expired
end

-- Mark whether a budget has crossed zero. The members of a group get the same mark.
local function set_crossed(session, kind, index, crossed)
  if kind == 's' then return set(session, 'crossed', crossed and 1 or 0) end
  touch(session, kind, index).has_expired = crossed
  if kind ~= 'g' then return end
  local places = {}
  for place = 1, member_count(session, index) do places[place] = place end
  for _, member in ipairs(fields_of(session, 'member:' .. int(index) .. ':', places)) do
    touch(session, 'p', tonumber(member)).has_expired = crossed
  end
end

-- JSON text of what is left of the current budget, as of the last charge; nil if there is no budget.
local function remaining_text(session)
  local kind, index = current_budget(session)
  return kind and int(budget_holder(session, kind, index).time_remaining_ms) or nil
end

-- The instant (ms) at which the running clock shows 0; nil if no budget runs. Only for a session without a time control.
local function deadline_of(session)
  if session.status ~= 'running' then return nil end
  local kind, index = current_budget(session)
  return kind and session.cycle_started_ms + budget_holder(session, kind, index).time_remaining_ms
end

-- The instant (ms) of the next timeout; nil if there is none, as in overtime. With a time control, also the instant at
-- which a period begins or ends before it, or nil.
local function timeout_at(session)
  if session.rules then return session.rules.next_due(session) end
  local deadline = deadline_of(session)
  if not deadline or has_crossed(session, current_budget(session)) then return nil end
  return math.max(deadline, session.updated_ms)
end

-- The instant (ms) of the next warning and the index of its threshold in warn_at; nil if there is none.
local function warning_at(session)
  if not session.warn_at then return nil end
  local deadline, left, soonest, number
  if session.rules then deadline, left = session.rules.warned_zero_at(session) else deadline = deadline_of(session) end
  for i, threshold in ipairs(deadline and session.warn_at or {}) do
    local at = math.max(deadline - tonumber(threshold), session.updated_ms)
    if left and left <= tonumber(threshold) then at = session.updated_ms end  -- a delay does not put this off
    local fired = math.floor(session.warned / 2 ^ (i - 1)) % 2 == 1  -- Lua 5.1 has no bitwise operators
    if not fired and (not soonest or at < soonest) then soonest, number = at, i end
  end
  return soonest, number
end
