-- Rebuilds a session from what the audit log has (docs/audit.md).
-- @include _load
-- @include _run
-- @include _settle

-- Copy what the audit log has into a new session.
--   scalars  a flat list of names and texts
--   records  the records of all participants, then of all groups
--   warn_at  thresholds (ms), or ''
local function copy_logged_state(session, scalars, records, warn_at)
  for i = 1, #scalars, 2 do
    if scalars[i + 1] ~= '' then set(session, scalars[i], tonumber(scalars[i + 1]) or scalars[i + 1]) end
  end
  local function field(name, value)
    session.static[#session.static + 1] = name
    session.static[#session.static + 1] = value
  end
  if warn_at ~= '' then field('warn_at', warn_at) end
  local groups_at = session.participant_count * WIDTH.p + 1
  for kind, text in pairs({p = string.sub(records, 1, groups_at - 1), g = string.sub(records, groups_at)}) do
    local width = WIDTH[kind]
    for at = 1, #text, BLOCK * width do
      field(record_position(kind, (at - 1) / width), string.sub(text, at, at + BLOCK * width - 1))
    end
  end
end

-- Write the session as version 0 of its new epoch, and load it like any other. Nothing may fail after this.
local function write_restored(session, epoch)
  for name, value in pairs({
    epoch = epoch, version = 0, participant_count = session.participant_count, group_count = session.group_count,
  }) do set(session, name, value) end
  write_fields(session)
  local restored = load_session(session.key)
  set(restored, 'status', restored.status)  -- the first commit then treats the status as new
  return restored
end

-- JSON text of what the current budget shows at an instant; nil if there is no budget.
local function shown_text(session, at)
  if session.rules then return int(session.rules.main_at(session, at)) end
  local kind, index = current_budget(session)
  local elapsed = session.status == 'running' and at - session.cycle_started_ms or 0
  return kind and int(budget_holder(session, kind, index).time_remaining_ms - elapsed) or nil
end

-- Charge the time elapsed up to the last commit in the log. Returns the elapsed ms, or nil.
local function charge_logged(session)
  return session.status == 'running' and charge(session, session.updated_ms) or nil
end

-- Restart idle time: the log does not record watchers, and no client could connect in the meantime.
local function restart_idle_time(session, now)
  set_next_due(session, now, true)
  set(session, 'idle_ms', math.max(session.idle_ms or 0, now + session.idle_timeout_ms))
end

-- What the clock did while the session was lost. Each returns the instant (ms) at which the restore takes effect, and
-- the ms that it charges.
local CLOCK_RULES = {
  -- The clock ran on.
  run = function(session, now)
    restart_idle_time(session, now)
    return session.updated_ms
  end,
  -- The clock stopped at the last commit in the log, and the session is paused.
  freeze = function(session, now)
    local elapsed = charge_logged(session)
    if session.status == 'running' then stop_clock(session, 'paused') end
    set(session, 'unattended', nil)
    restart_idle_time(session, now)
    return now, elapsed
  end,
  -- The clock stopped at the last commit in the log, and runs again from now on.
  credit = function(session, now)
    local elapsed = charge_logged(session)
    if session.status == 'running' then start_clock(session, now) end
    set(session, 'unattended', nil)
    restart_idle_time(session, now)
    return now, elapsed
  end,
}
