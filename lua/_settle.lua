-- Apply what is due, at its own instant, however late it is noticed (docs/clock.md).
-- @include _commit

local MAX_COMMITS = 64

-- Apply what is due at `now`. Returns whether all of it was applied. Sets call.expired_id if a participant has run out
-- of time, and call.instants to the instants (ms) of what was applied.
local function settle(session, keys, call, now)
  local look = session.look_ms
  if session.rules and not call.waits_for_lag and session.status == 'running' then
    look = look - session.rules.current_owner(session).clock.lag_left_ms  -- look_ms waits for a move that may be on its way
  end
  if not look or look > now then return true end
  -- In most calls nothing is due. The functions that apply it are defined only here, because defining functions is a
  -- large part of a short script's time.
  -- @include _timeouts
  call.instants = call.instants or {}
  for _ = 1, MAX_COMMITS do
    if not settle_one(session, keys, call, now) then return true end
  end
  return false
end
