-- When idle time counts (docs/clock.md), and when a session is next looked at by itself.
-- @include _modes

-- Whether idle time counts in a live session: while nothing runs towards an end. Timeouts of rounds that go on by
-- themselves without a last one are no end.
--   timeout  the instant of the next timeout, or nil
local function counts_idle(session, timeout)
  return not timeout
    or session.sync_mode == 'per_cycle' and session.on_timeout == 'skip_cycle' and not session.max_cycles
end

-- Set when a session is next looked at, or nil: what is finished does nothing by itself. Idle time begins anew at
-- `at` when somebody came, and when it begins to count; while it does not, idle_ms is what earlier releases expect.
--   came  true, or false; nil leaves idle_ms as it is
local function plan(session, at, came)
  local live, timeout, look = LIVE[session.status], timeout_at(session), nil
  local counts = live and counts_idle(session, timeout)
  if live and came then
    set(session, 'idle_ms', (counts and at or timeout) + session.idle_timeout_ms)
  elseif came == false and counts and not session.idling then
    -- Not before what a restore has granted.
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
