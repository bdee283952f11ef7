-- What every command does before its own guards: idempotency, load, settle, expected version. If more is due than one
-- call may apply, the command does not begin: the reply `busy` asks the caller to call again.
-- @include _load
-- @include _settle
-- @include _clock

-- The reply to a command whose idempotency key has a record, or nil. It has the current session, settled as for a read,
-- with the event and patch of the first result. The word is idempotency_mismatch if the key was used for another
-- command, and session_gone if the session no longer exists. A restored session is the same session: its created_ms is
-- equal.
local function replay(keys, call, now)
  local text = keys.idempotency and redis.call('GET', keys.idempotency)
  if not text then return nil end
  local record = read_record(text)
  if record.fingerprint ~= call.fingerprint then return refuse('idempotency_mismatch', now, nil, call) end
  if record.created == '' then return reply('ok', now, {}, call, record.event, record.patch, record) end
  local session = load_session(keys.session, call.fields)
  if not session or int(session.created_ms) ~= record.created then return refuse('session_gone', now, nil, call) end
  now = math.max(now, session.updated_ms)
  local settled = settle(session, keys, call, now)
  publish(keys, call)
  if not settled then return refuse('busy', now, nil, call) end
  call.expired_id = record.expired_id
  return reply('ok', now, state_for(session, call), call, record.event, record.patch, record)
end

-- Whether a session is at the epoch and version that the caller expects, if any.
local function is_expected(session, call)
  return (call.expected_epoch == '' or call.expected_epoch == int(session.epoch))
    and (call.expected_version == '' or call.expected_version == int(session.version))
end

-- Begin a command. Returns the settled session and the instant (ms) at which the command acts; or nil, the instant and
-- the reply that ends the call.
local function begin(keys, call)
  local now = call.now_ms or server_now_ms()
  local replayed = replay(keys, call, now)
  if replayed then return nil, now, replayed end
  local session = load_session(keys.session, call.fields)
  if not session then return nil, now, refuse('not_found', now, nil, call) end
  now = math.max(now, session.updated_ms)
  local settled = settle(session, keys, call, now)
  publish(keys, call)
  if not settled then return nil, now, refuse('busy', now, nil, call) end
  if not is_expected(session, call) then return nil, now, refuse('version_conflict', now, session, call) end
  return session, now
end
