-- Cycles: whose turn is next, and what ends a cycle and starts the next one (docs/clock.md). A script that uses these
-- functions includes this partial before _command or _settle, which define it only within a function.
-- @include _run

-- At the start of a cycle, mark the thresholds at or above the remaining time as fired.
local function reset_warnings(session)
  if not session.warn_at then return end
  local kind, index = current_budget(session)
  local left, warned = kind and budget_holder(session, kind, index).time_remaining_ms, 0
  if session.rules then left = session.rules.warned_left(session) end
  for i, threshold in ipairs(session.warn_at) do
    if left and tonumber(threshold) >= left then
      warned = warned + 2 ^ (i - 1)
    end
  end
  set(session, 'warned', warned)
end

-- Whether a participant or group has run out of time. Reads the flag from the block if the record is not parsed yet:
-- a search for the next participant may look at many records.
local function is_expired(session, kind, index)
  if session.records[kind][index] then return session.records[kind][index].has_expired end
  local name, at = record_position(kind, index)
  return string.byte(block_of(session, name), at + WIDTH[kind]) == 49  -- the character '1'
end

-- The next participant of the next group that has members, the current group last; nil if there is none.
local function next_in_groups(session, from, even_expired)
  for step = 1, session.group_count do
    local group = (from + step) % session.group_count
    local members = (even_expired or not is_expired(session, 'g', group)) and member_count(session, group) or 0
    if members > 0 then return member_of(session, group, record_of(session, 'g', group).count % members + 1) end
  end
  return nil
end

-- The next participant, the active one last; nil if all have expired and even_expired is false.
local function next_in_order(session, even_expired)
  if MODES[session.sync_mode].budget == 'g' then
    return next_in_groups(session, group_of(session, session.turn), even_expired)
  end
  for step = 1, session.participant_count do
    local index = (session.turn + step) % session.participant_count
    if even_expired or not is_expired(session, 'p', index) then return index end
  end
  return nil
end

-- The next participant whose time has not run out. With `notify`, if everybody's has, simply the next participant.
local function next_in_rotation(session)
  return next_in_order(session, false) or (session.on_timeout == 'notify' and next_in_order(session, true)) or nil
end

-- Whether a participant may not be given the turn because it has expired.
local function is_out_of_time(session, index)
  return session.on_timeout ~= 'notify' and is_expired(session, 'p', index)
end

-- Note how a turn begins, in a session in which cycles can be taken back.
local function begin_turn(session)
  if not session.takebacks then return end
  -- @include _takebacks
  note_turn(session)
end

-- Make a participant active; nil in a session without participants.
local function give_turn(session, index)
  if not index then return end
  set(session, 'turn', index)
  touch(session, 'p', index)
  local group, place = group_of(session, index)
  if group then
    local record = touch(session, 'g', group)
    session.last_place, record.count = record.count, place
  end
end

-- Add the increment to the current budget, unless that has crossed zero; with a time control, do all that _moves does.
-- Adds to the details of the switch's event. Returns the event that follows it at the same instant, {type, details}, or
-- nil.
--   lag_ms   lag that was not charged
--   is_free  whether the move is neither charged nor rewarded; only with a time control
local function complete_move(session, details, lag_ms, is_free)
  if session.rules then
    -- @include _moves
    return complete_ruled_move(session, details, lag_ms, is_free)
  end
  local kind, index = current_budget(session)
  if session.increment_ms > 0 and not has_crossed(session, kind, index) then
    set_remaining(session, kind, index, budget_holder(session, kind, index).time_remaining_ms + session.increment_ms)
  end
  details.remaining_ms = remaining_text(session)
  return nil
end

-- End the cycle at `at`, which is charged already, and start the next one with the turn at next_index. The last allowed
-- cycle completes the session instead. Returns whether the session continues.
local function end_cycle(session, next_index, at)
  if session.turn then
    local record = touch(session, 'p', session.turn)
    record.count = record.count + 1
  end
  set(session, 'cycle_count', session.cycle_count + 1)
  if session.rules then
    local owner = session.rules.current_owner(session)
    if owner.clock.turn_ms > 0 then
      owner.clock.turn_ms = 0
      session.rules.mark(session, owner)
    end
  end
  if session.cycle_count == session.max_cycles then
    finish(session, 'completed', at)
    return false
  end
  give_turn(session, next_index)
  set(session, 'cycle_started_ms', at)
  if MODES[session.sync_mode].refills then
    set(session, 'time_remaining_ms', session.time_per_cycle_ms)
    set(session, 'crossed', 0)
  end
  begin_turn(session)
  reset_warnings(session)
  return true
end
