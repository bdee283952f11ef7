-- What every command does before its own guards: idempotency, load, settle, expected version. With more
-- due than one call may apply, the command is not begun: `busy` asks to call again.
-- @include _settle
-- @include _clock

-- A malformed call fails here, before anything is written.
local function check_call(keys, call)
  assert(keys.session and keys.deadlines and keys.outbox and keys.nudge and keys.channel, 'a key is missing')
  assert(call.session_id and call.expected_epoch and call.expected_version and call.request_id and call.known_epoch
    and call.known_tags and call.session_ttl_ms and call.idempotency_ttl_ms, 'an argument is missing')
  assert((call.fingerprint ~= '') == (keys.idempotency ~= nil), 'an idempotency record needs a fingerprint')
end

-- The first result of this idempotency key, if it has one; 'idempotency_mismatch' if it was another
-- command's. The definition is not in the record: the session's own hash has it, or its tombstone, unless
-- another session of this id was made since. One that was restored since is the same.
local function replay(keys, call, now)
  local record = keys.idempotency and redis.call('GET', keys.idempotency)
  if not record then return nil end
  local first = cjson.decode(record)
  if first[1] ~= call.fingerprint then return refuse('idempotency_mismatch', now, nil, call) end
  local state = {}
  for i = 6, #first do state[i - 5] = first[i] end
  local epoch = epoch_of(state[1])
  if epoch then
    -- Of a deleted session there are an epoch and a definition, but no scalars.
    local scalars, last, definition = unpack(redis.call('HMGET', keys.session, 'scalars', 'epoch', 'definition'))
    if epoch ~= (epoch_of(scalars) or last) and created_of(state[1]) ~= created_of(scalars) then
      return refuse('not_found', now, nil, call)
    end
    if epoch ~= call.known_epoch then state[DEFINITION] = definition end
  end
  call.expired_id = first[3]
  return reply('ok', tonumber(first[2]), state, call, first[4], first[5], 1)
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
