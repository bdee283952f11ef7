-- Replies: a word first, then data. syncapp/errors.py maps each word to what a client sees.
-- @include _session

-- The whole state as a flat list of strings: scalars, metadata, definition, blocks. The definition
-- never changes within an epoch, so a caller that names its epoch is not sent it again.
local function state_of(session, known_epoch)
  local fields = {'metadata', 'definition'}
  if known_epoch == int(session.epoch) then fields[2] = 'no definition' end
  for number = 0, math.ceil(session.participant_count / BLOCK) - 1 do
    fields[#fields + 1] = 'p:' .. int(number)
  end
  local state = {}
  for i, name in ipairs(SCALARS) do
    local value = session[name]
    state[i] = value == nil and '' or WORDS[name] and value or int(value)
  end
  for _, value in ipairs(redis.call('HMGET', session.key, unpack(fields))) do
    state[#state + 1] = value or ''
  end
  return state
end

-- {word, now, state, event, patch, nudge, replayed, expired}: nudge is 1 when the bucket's outbox
-- wants draining, expired the id of who was found to have run out of time.
local function reply(word, now, state, call, event, patch, replayed)
  return {word, now, state, event or '', patch or '', call.nudge or 0, replayed or 0, call.expired_id or ''}
end

-- Refuse a command: nothing it asked for is written. The state tells the caller what is so.
local function refuse(word, now, session, call)
  return reply(word, now, session and state_of(session, call.known_epoch) or {}, call)
end

-- Accept a command that has nothing to change.
local function unchanged(now, session, call)
  return refuse('ok', now, session, call)
end
