-- What every command does before its own guards: idempotency, load, settle, expected version. With more
-- due than one call may apply, the command is not begun: `busy` asks to call again.
-- @include _settle
-- @include _clock

-- A malformed call fails here, before anything is written.
local function check_call(keys, call)
  assert(keys.session and keys.deadlines and keys.outbox and keys.nudge and keys.channel and keys.listed,
    'a key is missing')
  assert(call.session_id and call.expected_epoch and call.expected_version and call.request_id and call.known_epoch
    and call.known_tags and call.session_ttl_ms and call.idempotency_ttl_ms and call.most_unattended,
    'an argument is missing')
  assert((call.fingerprint ~= '') == (keys.idempotency ~= nil), 'an idempotency record needs a fingerprint')
end

-- The answer to a command whose key has a record: the current session, settled as for a read, and the event and
-- patch of the first result. 'idempotency_mismatch' if the key belongs to another command; 'session_gone' if the
-- session no longer exists. A restored session counts as the same one: its created_ms is equal.
local function replay(keys, call, now)
  local text = keys.idempotency and redis.call('GET', keys.idempotency)
  if not text then return nil end
  local first = read_record(text)
  if first.fingerprint ~= call.fingerprint then return refuse('idempotency_mismatch', now, nil, call) end
  if first.created == '' then return reply('ok', now, {}, call, first.event, first.patch, first) end
  local session = load_session(keys.session)
  if not session or int(session.created_ms) ~= first.created then return refuse('session_gone', now, nil, call) end
  now = math.max(now, session.updated_ms)
  local settled = settle(session, keys, call, now)
  publish(keys, call)
  if not settled then return refuse('busy', now, nil, call) end
  call.expired_id = first.expired_id
  return reply('ok', now, state_for(session, call), call, first.event, first.patch, first)
end

-- Whether a session is at the epoch and version that the caller expects, if it expects any.
local function is_expected(session, call)
  return (call.expected_epoch == '' or call.expected_epoch == int(session.epoch))
    and (call.expected_version == '' or call.expected_version == int(session.version))
end

-- Returns the session, settled, and the instant the command acts at; or nil and the reply that ends it.
local function begin(keys, call)
  check_call(keys, call)
  local now = server_now_ms()
  local replayed = replay(keys, call, now)
  if replayed then return nil, replayed end
  local session = load_session(keys.session)
  if not session then return nil, refuse('not_found', now, nil, call) end
  now = math.max(now, session.updated_ms)
  local settled = settle(session, keys, call, now)
  publish(keys, call)
  if not settled then return nil, refuse('busy', now, nil, call) end
  if not is_expected(session, call) then return nil, refuse('version_conflict', now, session, call) end
  return session, now
end
