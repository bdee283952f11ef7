-- What is due happens first, at its own instant, however late it is noticed (DESIGN §4).
-- @include _commit

-- Apply to a session what is due at `now`. Sets call.expired_id when someone is found out of time.
local function settle(session, keys, call, now)
  local deadline = deadline_of(session)
  if deadline and now >= deadline then
    local record = touch(session, session.turn)
    local id = participant_id(session, session.turn)
    local elapsed = charge(session, deadline)
    record.has_expired = true
    finish(session, 'expired', deadline)
    commit(session, keys, call, now, deadline, 'participant_expired', {
      participant_id = quote(id),
      remaining_ms = int(record.time_remaining_ms),
      action_on_timeout = redis.call('HGET', session.key, 'action_on_timeout'),
    }, 'system', elapsed)
    call.expired_id = id
  elseif LIVE[session.status] and now >= session.idle_ms then
    local at = session.idle_ms
    local id = active_id(session)
    local elapsed = charge(session, at)
    finish(session, 'cancelled', at)
    commit(session, keys, call, now, at, 'session_cancelled', {
      participant_id = id and quote(id),
      reason = quote('idle'),
    }, 'system', elapsed)
  end
end
