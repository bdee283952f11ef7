-- The clock: what runs, what a switch does, when it ends (docs/clock.md). No other file knows a mode.
-- @include _session

local SESSION_BUDGET = {per_cycle = true, global = true, count_up = true}
local SKIPS = {per_participant = true, per_group = true, per_cycle = true}

-- Whose budget runs, or would run: 'p' or 'g' and an index, 's' for the session's own, nil for none.
local function budget_of(session)
  local index = session.turn or (session.participant_count > 0 and 0 or nil)
  if session.sync_mode == 'per_participant' then return 'p', index end
  if session.sync_mode == 'per_group' then return 'g', group_of(session, index) end
  return session.time_remaining_ms and 's' or nil
end

local function holder_of(session, kind, index)
  if kind == 's' then return session end
  return record_of(session, kind, index)
end

local function set_remaining(session, kind, index, value)
  if kind == 's' then set(session, 'time_remaining_ms', value)
  else touch(session, kind, index).time_remaining_ms = value end
end

-- Whether a budget has run out, and was not given time since.
local function has_crossed(session, kind, index)
  if kind == 's' then return session.crossed == 1 end
  return record_of(session, kind, index).has_expired
end

-- Mark a budget as run out, or not any more; a group's members with it.
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

-- The instant (ms) at which the running clock shows 0; nil when nothing runs out.
local function deadline_of(session)
  if session.status ~= 'running' then return nil end
  local kind, index = budget_of(session)
  return kind and session.cycle_started_ms + holder_of(session, kind, index).time_remaining_ms
end

-- The instant of the next timeout, or nil: in overtime there is none.
local function timeout_at(session)
  local deadline = deadline_of(session)
  if not deadline or has_crossed(session, budget_of(session)) then return nil end
  return math.max(deadline, session.updated_ms)
end

-- The instant and the place of the next warning to fire; nil when none will.
local function warning_at(session)
  local deadline = session.warn_at and deadline_of(session)
  local soonest, place
  for i, threshold in ipairs(deadline and session.warn_at or {}) do
    local at = math.max(deadline - tonumber(threshold), session.updated_ms)
    local fired = math.floor(session.warned / 2 ^ (i - 1)) % 2 == 1
    if not fired and (not soonest or at < soonest) then soonest, place = at, i end
  end
  return soonest, place
end

-- At the start of a cycle, thresholds that are passed already are taken as fired.
local function begin_warnings(session)
  if not session.warn_at then return end
  local kind, index = budget_of(session)
  local warned = 0
  for i, threshold in ipairs(session.warn_at) do
    if kind and tonumber(threshold) >= holder_of(session, kind, index).time_remaining_ms then
      warned = warned + 2 ^ (i - 1)
    end
  end
  set(session, 'warned', warned)
end

-- Start a run of the clock at `at`.
local function run(session, at)
  set(session, 'status', 'running')
  set(session, 'cycle_started_ms', at)
end

-- Charge what has elapsed up to `at`; returns the elapsed ms, or nil when nothing runs.
local function charge(session, at)
  if session.status ~= 'running' then return nil end
  local elapsed = at - session.cycle_started_ms
  local kind, index = budget_of(session)
  if kind then set_remaining(session, kind, index, holder_of(session, kind, index).time_remaining_ms - elapsed) end
  if SESSION_BUDGET[session.sync_mode] then set(session, 'time_used_ms', session.time_used_ms + elapsed) end
  local group = group_of(session, session.turn)
  for charged, place in pairs({p = session.turn, g = group}) do
    local record = touch(session, charged, place)
    record.time_used_ms = record.time_used_ms + elapsed
  end
  return elapsed
end

-- Whether somebody has run out of time, read without taking the record apart.
local function is_expired(session, kind, index)
  if session.records[kind][index] then return session.records[kind][index].has_expired end
  local name, at = place_of(kind, index)
  return string.byte(block_of(session, name), at + WIDTH) == 49
end

-- The next group with members, its own last; or nil.
local function next_group(session, from, even_expired)
  for step = 1, session.group_count do
    local group = (from + step) % session.group_count
    local members = (even_expired or not is_expired(session, 'g', group)) and member_count(session, group) or 0
    if members > 0 then return member_of(session, group, record_of(session, 'g', group).count % members + 1) end
  end
  return nil
end

-- Who is next in rotation, the active participant last; nil when all have run out of time.
local function next_in_order(session, even_expired)
  if session.sync_mode == 'per_group' then
    return next_group(session, group_of(session, session.turn), even_expired)
  end
  for step = 1, session.participant_count do
    local index = (session.turn + step) % session.participant_count
    if even_expired or not is_expired(session, 'p', index) then return index end
  end
  return nil
end

local function next_in_rotation(session)
  return next_in_order(session, false) or (session.on_timeout == 'notify' and next_in_order(session, true)) or nil
end

-- Whether a participant cannot be given the turn, having no time to run on.
local function out_of_time(session, index)
  return session.on_timeout ~= 'notify' and is_expired(session, 'p', index)
end

-- Stop the clock without ending the cycle.
local function halt(session, status)
  set(session, 'status', status)
  set(session, 'cycle_started_ms', nil)
end

-- End the session at `at`: nothing runs, and nobody is active any more.
local function finish(session, status, at)
  if session.turn then touch(session, 'p', session.turn) end
  halt(session, status)
  set(session, 'session_completed_ms', at)
end

-- Give the turn to a participant, or to nobody in a session without any.
local function give_turn(session, index)
  if not index then return end
  set(session, 'turn', index)
  touch(session, 'p', index)
  local group, place = group_of(session, index)
  if group then touch(session, 'g', group).count = place end
end

-- JSON text of what is left of the budget that runs or would run; nil when there is none.
local function remaining_text(session)
  local kind, index = budget_of(session)
  return kind and int(holder_of(session, kind, index).time_remaining_ms) or nil
end

-- Credit the increment to the mover's budget, unless that has run out; returns what is left of it.
local function credit_increment(session)
  local kind, index = budget_of(session)
  if session.increment_ms > 0 and not has_crossed(session, kind, index) then
    set_remaining(session, kind, index, holder_of(session, kind, index).time_remaining_ms + session.increment_ms)
  end
  return remaining_text(session)
end

-- End the cycle at `at`, charged already, and hand the turn to `next`; with the last allowed cycle the
-- session is completed. Returns whether it goes on.
local function hand_over(session, next, at)
  if session.turn then
    local record = touch(session, 'p', session.turn)
    record.count = record.count + 1
  end
  set(session, 'cycle_count', session.cycle_count + 1)
  if session.cycle_count == session.max_cycles then
    finish(session, 'completed', at)
    return false
  end
  give_turn(session, next)
  set(session, 'cycle_started_ms', at)
  if session.sync_mode == 'per_cycle' then
    set(session, 'time_remaining_ms', session.time_per_cycle_ms)
    set(session, 'crossed', 0)
  end
  begin_warnings(session)
  return true
end
