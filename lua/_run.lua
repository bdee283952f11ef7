-- A run of the clock: starting it, stopping it, and charging what has elapsed (docs/clock.md). A script that uses these
-- functions includes this partial before _command or _settle, which define it only within a function.
-- @include _budgets

local function start_clock(session, at)
  set(session, 'status', 'running')
  set(session, 'cycle_started_ms', at)
end

-- Stop the clock without ending the cycle.
local function stop_clock(session, status)
  set(session, 'status', status)
  set(session, 'cycle_started_ms', nil)
end

local function add_time_used(session, kind, index, elapsed)
  local record = touch(session, kind, index)
  record.time_used_ms = record.time_used_ms + elapsed
end

-- Charge the time elapsed up to `at`. Returns the elapsed ms, or nil if the clock does not run.
local function charge(session, at)
  if session.status ~= 'running' then return nil end
  local elapsed = at - session.cycle_started_ms
  local kind, index = current_budget(session)
  if session.rules then session.rules.charge(session, elapsed)
  elseif kind then set_remaining(session, kind, index, budget_holder(session, kind, index).time_remaining_ms - elapsed)
  end
  if MODES[session.sync_mode].budget == 's' then set(session, 'time_used_ms', session.time_used_ms + elapsed) end
  local group = group_of(session, session.turn)
  if session.turn then add_time_used(session, 'p', session.turn, elapsed) end
  if group then add_time_used(session, 'g', group, elapsed) end
  return elapsed
end

-- Finish the session at `at`: the clock stops, and no participant is active.
local function finish(session, status, at)
  if session.turn then touch(session, 'p', session.turn) end
  stop_clock(session, status)
  set(session, 'session_completed_ms', at)
end
