-- The message that a commit stores and publishes: what changed, and why (docs/protocol.md).
-- @include _session

local PATCH = {
  'version', 'status', 'active_participant_id', 'cycle_count', 'cycle_started_ms', 'session_started_ms',
  'session_completed_ms', 'updated_ms', 'metadata', 'participants',
}
local PARTICIPANT = {'time_used_ms', 'time_remaining_ms', 'cycle_count', 'is_active', 'has_expired'}
local EVENT = {'type', 'at_ms', 'participant_id', 'next_participant_id', 'remaining_ms', 'reason', 'action_on_timeout'}
local MESSAGE = {
  'session_id', 'epoch', 'version', 'sync_mode', 'status', 'cycle_count', 'elapsed_ms', 'actor',
  'request_id', 'event', 'patch', 'snapshot',
}

local function participants_patch(session)
  local ids, texts = {}, {}
  for index in pairs(session.touched) do
    local record, id = participant(session, index), participant_id(session, index)
    ids[#ids + 1] = id
    texts[id] = object(PARTICIPANT, {
      time_used_ms = int(record.time_used_ms),
      time_remaining_ms = int(record.time_remaining_ms),
      cycle_count = int(record.cycle_count),
      is_active = tostring(active(session) == index),
      has_expired = tostring(record.has_expired),
    })
  end
  return #ids > 0 and object(ids, texts) or nil
end

-- The fields of the state that this commit changes, under their names in the state.
local function patch_of(session)
  local changed = session.changed
  return object(PATCH, {
    version = int(session.version),
    updated_ms = int(session.updated_ms),
    status = changed.status and quote(session.status),
    active_participant_id = (changed.status or changed.turn) and quote_or_null(active_id(session)),
    cycle_count = changed.cycle_count and int(session.cycle_count),
    cycle_started_ms = changed.cycle_started_ms and int_or_null(session.cycle_started_ms),
    session_started_ms = changed.session_started_ms and int_or_null(session.session_started_ms),
    session_completed_ms = changed.session_completed_ms and int_or_null(session.session_completed_ms),
    metadata = changed.metadata and session.metadata,
    participants = participants_patch(session),
  })
end

-- details: JSON texts by the names of EVENT.
local function event_of(word, at, details)
  details.type, details.at_ms = quote(word), int(at)
  return object(EVENT, details)
end

local function message_of(session, call, actor, elapsed, event, patch, snapshot)
  return object(MESSAGE, {
    session_id = quote(call.session_id),
    epoch = int(session.epoch),
    version = int(session.version),
    sync_mode = quote(session.sync_mode),
    status = quote(session.status),
    cycle_count = int(session.cycle_count),
    elapsed_ms = int_or_null(elapsed),
    actor = quote(actor),
    request_id = quote(call.request_id),
    event = event,
    patch = patch,
    snapshot = snapshot,
  })
end
