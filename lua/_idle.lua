-- When idle time counts (docs/clock.md), and when the sweeper next has to look at a session.
-- @include _modes

-- Whether idle time counts in a live session: yes, unless it runs towards an end. The timeouts of rounds without a
-- last cycle are not an end.
--   timeout  the instant of the next timeout, or nil
local function counts_idle(session, timeout)
  return not timeout
    or session.sync_mode == 'per_cycle' and session.on_timeout == 'skip_cycle' and not session.max_cycles
end

-- Set look_ms; nil for a finished session, in which nothing is due. Idle time begins anew at `at` after a client's
-- command, and when it begins to count; while it does not count, idle_ms is the value that earlier releases expect.
--   came  whether a client sent a command; nil leaves idle_ms as it is
local function plan(session, at, came)
  local live, timeout, look = LIVE[session.status], timeout_at(session), nil
  local counts = live and counts_idle(session, timeout)
  if live and came then
    set(session, 'idle_ms', (counts and at or timeout) + session.idle_timeout_ms)
  elseif came == false and counts and not session.idling then
    -- Not earlier than a restore has set it.
    set(session, 'idle_ms', math.max(session.idle_ms, at + session.idle_timeout_ms))
  end
  local idling = counts and 1 or nil
  if idling ~= session.idling then set(session, 'idling', idling) end
  if live then
    look = math.min(timeout or session.idle_ms, counts and session.idle_ms or timeout)
    look = session.warn_at and math.min(look, (warning_at(session)) or look) or look
  end
  set(session, 'look_ms', look)
end
