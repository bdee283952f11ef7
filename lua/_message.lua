-- The message that a commit stores and publishes: what changed, and why (docs/protocol.md).
-- @include _session
-- @include _modes

local EVENT = {
  'type', 'at_ms', 'participant_id', 'group_id', 'next_participant_id', 'remaining_ms', 'threshold_ms',
  'adjusted_ms', 'reason', 'result', 'action_on_timeout',
}
local CHANGES = {
  'cycle_count', 'time_used_ms', 'time_remaining_ms', 'cycle_started_ms', 'session_started_ms', 'session_completed_ms',
}
local MESSAGE = '{%s,"epoch":%d,"version":%d,"sync_mode":"%s","status":"%s","cycle_count":%d,'
  .. '"elapsed_ms":%s,"actor":"%s","request_id":"%s","previous":"%s","event":%s,"patch":%s%s%s}'
local PARTICIPANT = '"%s":{"time_used_ms":%d,"time_remaining_ms":%s,"cycle_count":%d,"is_active":%s,"has_expired":%s%s}'
local GROUP = '"%s":{"time_used_ms":%d,"time_remaining_ms":%d,"has_expired":%s%s}'

local function participants_patch(session)
  local touched, parts = session.touched, {}
  local ids, clocks = ids_with(session, touched.p), touched.c
  local have_budgets = MODES[session.sync_mode].budget == 'p'
  for index in pairs(touched.p) do
    local record = record_of(session, 'p', index)
    local remaining = have_budgets and record.time_remaining_ms or nil
    parts[#parts + 1] = string.format(PARTICIPANT, ids[index], record.time_used_ms,
      int_or_null(remaining), record.count, tostring(active(session) == index), tostring(record.has_expired),
      have_budgets and clocks and clocks[index] and session.rules.clock_members(session, 'p', index) or '')
  end
  return '"participants":{' .. table.concat(parts, ',') .. '}'
end

local function groups_patch(session)
  local parts, clocks = {}, session.touched.c or {}
  for index in pairs(session.touched.g) do
    local record = record_of(session, 'g', index)
    parts[#parts + 1] = string.format(GROUP, group_id(session, index), record.time_used_ms, record.time_remaining_ms,
      tostring(record.has_expired), clocks[index] and session.rules.clock_members(session, 'g', index) or '')
  end
  return '"groups":{' .. table.concat(parts, ',') .. '}'
end

-- The fields of the state that this commit changes, by their names in the state.
--   hides_metadata  whether to leave the metadata out
local function patch_of(session, hides_metadata)
  local changed, parts = session.changed, {
    '"version":' .. int(session.version), '"updated_ms":' .. int(session.updated_ms),
  }
  for i = 1, #CHANGES do
    local name = CHANGES[i]
    if changed[name] then parts[#parts + 1] = '"' .. name .. '":' .. int_or_null(session[name]) end
  end
  if changed.status then parts[#parts + 1] = '"status":' .. quote(session.status) end
  if changed.status or changed.turn then
    parts[#parts + 1] = '"active_participant_id":' .. quote_or_null(active_id(session))
  end
  if changed.metadata and not hides_metadata then parts[#parts + 1] = '"metadata":' .. session.metadata end
  if next(session.touched.p) then parts[#parts + 1] = participants_patch(session) end
  if next(session.touched.g) then parts[#parts + 1] = groups_patch(session) end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- The JSON object of an event. details: JSON texts by the names in EVENT; and `more`, further JSON members, or nil.
local function event_text(details)
  local event = object(EVENT, details)
  return details.more and string.sub(event, 1, -2) .. ',' .. details.more .. '}' or event
end

local function event_of(event_type, at, details)
  details.type, details.at_ms = quote(event_type), int(at)
  return event_text(details)
end

-- The message of a commit. Its member `previous` is the hash of the session's previous message; the first message of an
-- epoch may have none.
--   added_members  further JSON members after the patch, or ''
--   snapshot       a list of strings, or nil
local function message_of(session, call, actor, elapsed, event, patch, added_members, snapshot)
  return string.format(MESSAGE, call.names, session.epoch, session.version, session.sync_mode, session.status,
    session.cycle_count, int_or_null(elapsed), actor, call.request_id, session.chain or '', event, patch,
    added_members, snapshot and ',"snapshot":' .. cjson.encode(snapshot) or '')
end

-- Add the active participant and its group to an event's details.
local function with_active_ids(session, details)
  local index = active(session)
  local group = group_of(session, index)
  details.participant_id = index and quote(participant_id(session, index))
  details.group_id = group and quote(group_id(session, group))
  return details
end
