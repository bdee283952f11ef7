-- What a session does by itself: warnings, timeouts, the unattended pause, the idle end.
-- @include _commit
-- @include _cycles
-- @include _periods

local function warn(session, keys, call, now, at, number)
  set(session, 'warned', session.warned + 2 ^ (number - 1))
  commit(session, keys, call, now, at, 'time_warning', with_active_ids(session, {
    remaining_ms = int(session.rules and session.rules.shown_in_phase(session, at) or deadline_of(session) - at),
    threshold_ms = session.warn_at[number],
  }), 'system')
end

local function time_out(session, keys, call, now, at)
  local mode = MODES[session.sync_mode]
  local kind, index = current_budget(session)
  local details = with_active_ids(session, {
    action_on_timeout = redis.call('HGET', session.key, 'action_on_timeout') or type_only(session.on_timeout),
  })
  if kind ~= 's' then call.expired_id = active_id(session) end
  local elapsed
  if session.on_timeout == 'notify' then
    set_crossed(session, kind, index, true)
    details.remaining_ms = int(session.rules and session.rules.main_at(session, at) or deadline_of(session) - at)
  else
    elapsed = charge(session, at)
    set_crossed(session, kind, index, true)
    details.remaining_ms = remaining_text(session)
    local skips = session.on_timeout == 'skip_cycle' and mode.skips
    local next_index = skips and session.turn and next_in_rotation(session)
    if skips and (next_index or not session.turn) then
      set(session, 'unattended', (session.unattended or 0) + 1)
      if end_cycle(session, next_index, at) and next_index then
        details.next_participant_id = quote(participant_id(session, next_index))
      end
    else
      finish(session, 'expired', at)
    end
  end
  commit(session, keys, call, now, at, mode.timeout_event, details, 'system', elapsed)
end

-- Pause rounds that have gone on unattended for too long. The next cycle has just begun with its full budget.
local function pause_unattended(session, keys, call, now, at)
  local elapsed = charge(session, at)
  stop_clock(session, 'paused')
  commit(session, keys, call, now, at, 'session_paused', with_active_ids(session, {
    remaining_ms = remaining_text(session), reason = quote('unattended'),
  }), 'system', elapsed)
end

local function cancel_idle(session, keys, call, now, at)
  local details = with_active_ids(session, {reason = quote('idle')})
  local elapsed = charge(session, at)
  finish(session, 'cancelled', at)
  commit(session, keys, call, now, at, 'session_cancelled', details, 'system', elapsed)
end

-- Apply what is due first at `now`. Returns whether anything was due.
local function settle_one(session, keys, call, now)
  if not LIVE[session.status] then return false end
  local warning, number = warning_at(session)
  local timeout, boundary = timeout_at(session)
  local idle = counts_idle(session, timeout) and session.idle_ms or math.huge
  local wait = session.rules and call.waits_for_lag and session.rules.current_owner(session).clock.lag_left_ms or 0
  if warning and warning <= now and warning <= math.min(boundary or timeout or warning, idle) then
    warn(session, keys, call, now, warning, number)
    call.instants[#call.instants + 1] = int(warning)
  elseif boundary and boundary + wait <= now and boundary <= idle then
    begin_period(session, keys, call, now, boundary)
    call.instants[#call.instants + 1] = int(boundary)
  elseif timeout and timeout + wait <= now and timeout <= idle then
    time_out(session, keys, call, now, timeout)
    call.instants[#call.instants + 1] = int(timeout)
    if session.status == 'running' and (session.unattended or 0) >= tonumber(call.max_unattended_cycles) then
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
