-- A session that comes back from the audit log.
-- @include _settle

-- Take over scalars, a flat list of names and texts; thresholds; and records: participants', then groups'.
local function take_over(session, scalars, records, warn_at)
  for i = 1, #scalars, 2 do
    if scalars[i + 1] ~= '' then set(session, scalars[i], tonumber(scalars[i + 1]) or scalars[i + 1]) end
  end
  local function field(name, value)
    session.static[#session.static + 1] = name
    session.static[#session.static + 1] = value
  end
  if warn_at ~= '' then field('warn_at', warn_at) end
  local groups_at = session.participant_count * WIDTH + 1
  for kind, text in pairs({p = string.sub(records, 1, groups_at - 1), g = string.sub(records, groups_at)}) do
    for at = 1, #text, BLOCK * WIDTH do
      field(place_of(kind, (at - 1) / WIDTH), string.sub(text, at, at + BLOCK * WIDTH - 1))
    end
  end
end

-- Write it, before the first commit of its epoch; returns it as any command finds it. Nothing may fail from here on.
local function lay_down(session, epoch)
  for name, value in pairs({
    epoch = epoch, version = 0, participant_count = session.participant_count, group_count = session.group_count,
  }) do set(session, name, value) end
  write_fields(session)
  local found = load_session(session.key)
  set(found, 'status', found.status)
  return found
end

-- JSON text of what the clock that runs, or would run, shows at an instant; nil when nothing runs out.
local function shown_text(session, at)
  local kind, index = budget_of(session)
  local ran = session.status == 'running' and at - session.cycle_started_ms or 0
  return kind and int(holder_of(session, kind, index).time_remaining_ms - ran) or nil
end

-- Charge what elapsed until the last instant that is known; returns it.
local function charge_known(session)
  return session.status == 'running' and charge(session, session.updated_ms) or nil
end

-- Begin the idle time anew: the log does not record watchers, and no client could come meanwhile.
local function let_somebody_come(session, now)
  plan(session, now, true)
  set(session, 'idle_ms', math.max(session.idle_ms or 0, now + session.idle_timeout_ms))
end

-- What the clock did while the session was away (docs/audit.md). Each returns when the restore takes effect, and
-- the ms it charges.
local RULES = {
  -- It went on as if nothing had happened.
  run = function(session, now)
    let_somebody_come(session, now)
    return session.updated_ms
  end,
  -- It stopped at the last instant that is known.
  freeze = function(session, now)
    local elapsed = charge_known(session)
    if session.status == 'running' then halt(session, 'paused') end
    set(session, 'unattended', nil)
    let_somebody_come(session, now)
    return now, elapsed
  end,
  -- It stopped then, too, and goes on now.
  credit = function(session, now)
    local elapsed = charge_known(session)
    if session.status == 'running' then run(session, now) end
    set(session, 'unattended', nil)
    let_somebody_come(session, now)
    return now, elapsed
  end,
}
