-- The clock: what runs, what a switch does, when it ends (DESIGN §4).
-- @include _session

-- Remaining ms of the clock that runs, as of the last change.
local function running_budget(session)
  return participant(session, session.turn).time_remaining_ms
end

-- The instant (ms) at which the running clock reaches 0, or nil when nothing runs.
local function deadline_of(session)
  if session.status ~= 'running' then return nil end
  return session.cycle_started_ms + running_budget(session)
end

-- Start a run of the clock at `at`.
local function run(session, at)
  set(session, 'status', 'running')
  set(session, 'cycle_started_ms', at)
end

-- Charge what has elapsed up to `at` to the active participant; returns the elapsed ms, or nil when
-- nothing runs.
local function charge(session, at)
  if session.status ~= 'running' then return nil end
  local elapsed = at - session.cycle_started_ms
  local record = touch(session, session.turn)
  record.time_used_ms = record.time_used_ms + elapsed
  record.time_remaining_ms = record.time_remaining_ms - elapsed
  return elapsed
end

-- The participant after the active one, in rotation order.
local function next_in_rotation(session)
  return (session.turn + 1) % session.participant_count
end

-- End the active participant's cycle at `at` and hand the turn to `next`.
local function hand_over(session, next, at)
  local record = touch(session, session.turn)
  record.cycle_count = record.cycle_count + 1
  if not record.has_expired then
    record.time_remaining_ms = record.time_remaining_ms + session.increment_ms
  end
  set(session, 'cycle_count', session.cycle_count + 1)
  set(session, 'turn', next)
  set(session, 'cycle_started_ms', at)
  touch(session, next)
end

-- Stop the clock without ending the cycle.
local function halt(session, status)
  set(session, 'status', status)
  set(session, 'cycle_started_ms', nil)
end

-- End the session at `at`: nothing runs, and nobody is active any more.
local function finish(session, status, at)
  if session.turn then touch(session, session.turn) end
  halt(session, status)
  set(session, 'session_completed_ms', at)
end
