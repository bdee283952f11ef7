-- When idle time counts (docs/clock.md), and when something is due next in a session.
-- @include _budgets

-- Whether idle time counts in a live session: it does unless the clock runs towards an end. Timeouts of rounds without
-- a last cycle are not an end.
--   timeout  the instant (ms) of the next timeout, or nil
local function counts_idle(session, timeout)
  return not timeout
    or MODES[session.sync_mode].refills and session.on_timeout == 'skip_cycle' and not session.max_cycles
end

-- Set look_ms, the next instant (ms) at which something is due, or nil in a finished session. Idle time restarts at
-- `at` after a client's command, and when it begins to count. While it does not count, idle_ms has the value that
-- earlier releases expect.
--   by_client  whether a client sent a command; nil leaves idle_ms as it is
local function set_next_due(session, at, by_client)
  local live, due = LIVE[session.status], nil
  local timeout, boundary = timeout_at(session)
  local counts = live and counts_idle(session, timeout)
  if live and by_client then
    set(session, 'idle_ms', (counts and at or timeout) + session.idle_timeout_ms)
  elseif by_client == false and counts and not session.idling then
    -- Not earlier than the idle end that a restore has set.
    set(session, 'idle_ms', math.max(session.idle_ms, at + session.idle_timeout_ms))
  end
  local idling = counts and 1 or nil
  if idling ~= session.idling then set(session, 'idling', idling) end
  if live then
    due = math.min(timeout or session.idle_ms, counts and session.idle_ms or timeout)
    if session.rules and timeout then
      local soonest = (boundary or timeout) + session.rules.current_owner(session).clock.lag_left_ms
      due = math.min(soonest, counts and session.idle_ms or soonest)
    end
    due = session.warn_at and math.min(due, (warning_at(session)) or due) or due
  end
  set(session, 'look_ms', due)
end
