-- What a session does by itself: warnings, timeouts, the end of one that nobody comes to.
-- @include _commit

local TIMEOUTS = {per_participant = 'participant_expired', per_group = 'group_expired', per_cycle = 'cycle_timed_out'}

local function warn(session, keys, call, now, at, place)
  set(session, 'warned', session.warned + 2 ^ (place - 1))
  commit(session, keys, call, now, at, 'time_warning', concerning(session, {
    remaining_ms = int(deadline_of(session) - at),
    threshold_ms = session.warn_at[place],
  }), 'system')
end

local function time_out(session, keys, call, now, at)
  local kind, index = budget_of(session)
  local details = concerning(session, {
    action_on_timeout = redis.call('HGET', session.key, 'action_on_timeout') or type_only(session.on_timeout),
  })
  if kind ~= 's' then call.expired_id = active_id(session) end
  local elapsed
  if session.on_timeout == 'notify' then
    set_crossed(session, kind, index, true)
    details.remaining_ms = int(deadline_of(session) - at)
  else
    elapsed = charge(session, at)
    set_crossed(session, kind, index, true)
    details.remaining_ms = remaining_text(session)
    local goes_on = session.on_timeout == 'skip_cycle' and SKIPS[session.sync_mode]
    local next = goes_on and session.turn and next_in_rotation(session)
    if goes_on and (next or not session.turn) then
      set(session, 'unattended', (session.unattended or 0) + 1)
      if hand_over(session, next, at) and next then
        details.next_participant_id = quote(participant_id(session, next))
      end
    else
      finish(session, 'expired', at)
    end
  end
  local word = TIMEOUTS[session.sync_mode] or 'session_expired'
  commit(session, keys, call, now, at, word, details, 'system', elapsed)
end

-- Pause rounds that were unattended for too long, when the next cycle has just begun with its full budget.
local function pause_unattended(session, keys, call, now, at)
  local elapsed = charge(session, at)
  halt(session, 'paused')
  commit(session, keys, call, now, at, 'session_paused', concerning(session, {
    remaining_ms = remaining_text(session), reason = quote('unattended'),
  }), 'system', elapsed)
end

local function cancel_idle(session, keys, call, now, at)
  local details = concerning(session, {reason = quote('idle')})
  local elapsed = charge(session, at)
  finish(session, 'cancelled', at)
  commit(session, keys, call, now, at, 'session_cancelled', details, 'system', elapsed)
end

-- Apply the first of what is due at `now`; returns whether anything was.
local function settle_one(session, keys, call, now)
  if not LIVE[session.status] then return false end
  local warning, place = warning_at(session)
  local timeout = timeout_at(session)
  local idle = counts_idle(session, timeout) and session.idle_ms or math.huge
  if warning and warning <= now and warning <= math.min(timeout or warning, idle) then
    warn(session, keys, call, now, warning, place)
    call.instants[#call.instants + 1] = int(warning)
  elseif timeout and timeout <= now and timeout <= idle then
    time_out(session, keys, call, now, timeout)
    call.instants[#call.instants + 1] = int(timeout)
    if session.status == 'running' and (session.unattended or 0) >= tonumber(call.most_unattended) then
      pause_unattended(session, keys, call, now, timeout)
      call.instants[#call.instants + 1] = int(timeout)
    end
  elseif idle <= now then
    cancel_idle(session, keys, call, now, idle)
    call.instants[#call.instants + 1] = int(idle)
  else
    return false
  end
  return true
end
