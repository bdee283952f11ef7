-- Lag compensation: a move takes effect at its receipt, but is charged up to the instant at which the client acted, or
-- as near to it as the owner's quota allows (docs/time-controls.md). Until the quota is used up, the store waits for a
-- move that may be on its way before it applies what is due.
-- @include _command

-- The lag (ms) of a move received at `now` that is not charged.
--   acted_ms   the instant (ms) of the act, by a caller who may state it; or nil
--   spent_ms   the time that the client says it needed; or nil
--   limit_ms   what the connection's measured round trip allows; or nil
local function lag_of(session, now, acted_ms, spent_ms, limit_ms)
  local elapsed, claimed = now - session.cycle_started_ms, 0
  local clock = session.rules.current_owner(session).clock
  if acted_ms then claimed = now - acted_ms
  elseif spent_ms and limit_ms then claimed = math.min(clock.turn_ms + elapsed - spent_ms, limit_ms) end
  return math.max(0, math.min(claimed, elapsed, clock.lag_left_ms))
end

-- Apply what was due before the act of a move received at `now`. Returns the lag (ms) that is not charged, and whether
-- all of it was applied. Nothing is applied for a participant who may not move: its opponent's move may be on its way.
--   id  the participant who must be active, or ''
local function settle_until_act(session, keys, call, now, id, acted_ms, spent_ms, limit_ms)
  call.waits_for_lag = false
  if session.status ~= 'running' or session.rules.current_owner(session).clock.lag_left_ms == 0 then return 0, true end
  if id ~= '' and id ~= active_id(session) then return 0, true end
  local lag_ms = lag_of(session, now, acted_ms, spent_ms, limit_ms)
  local cycle_count = session.cycle_count
  local settled = settle(session, keys, call, now - lag_ms)
  if settled and session.cycle_count ~= cycle_count then  -- the turn has passed on: this was another owner's lag
    lag_ms, settled = 0, settle(session, keys, call, now)
  end
  publish(keys, call)
  return lag_ms, settled
end
