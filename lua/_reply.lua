-- Replies: first a word, then data. syncapp/errors.py maps each word to what a client gets.
-- @include _session

local TAGS = 4  -- their position in a state, after scalars, metadata and definition

-- The reason and result of a completed session as JSON text; false if it has none.
local function completion_of(session)
  return session.status == 'completed' and redis.call('HGET', session.key, 'completion')
end

-- The same as a word to append to the tags; '' if there is none. A word contains no spaces, so they are escaped.
local function completion_word(session)
  local completion = completion_of(session)
  return completion and ' completion=' .. string.gsub(completion, ' ', '\\u0020') or ''
end

-- The whole state as a list of strings: scalars, metadata, definition, tags, blocks. A time control is a second line of
-- the definition. What the caller has cached is '':
-- the definition if the caller knows the epoch, and then each block whose tag it knows. So replies stay small with many
-- participants.
local function state_of(session, known_epoch, known_tags)
  local known = known_epoch == int(session.epoch)
  local definition = known and '' or redis.call('HGET', session.key, 'definition')
  if session.control and not known then definition = definition .. '\n' .. session.control end
  local state = {session.scalars, session.metadata, definition, ''}
  local tags = session.block_tags
  state[TAGS] = (tags and table.concat(tags, ' ') or '') .. completion_word(session)
  local cached = tags and known and split(known_tags)
  for number, name in ipairs(block_names(session)) do
    local is_cached = cached and tags[number] == cached[number]
    state[TAGS + number] = is_cached and '' or session.blocks[name] or redis.call('HGET', session.key, name)
  end
  return state
end

local function state_for(session, call)
  return state_of(session, call.known_epoch, call.known_tags)
end

-- A reply: {word, now, state, event, patch, nudge, replayed, expired}; and with limits session_us, principal_us.
--   nudge     1 if the bucket's outbox is to be drained, otherwise 0
--   replayed  '' if the command was executed now; otherwise 'epoch version' of its first result, or 'deleted'
--   expired   the id of the participant whose time has run out, or ''
--   record    the idempotency record of a repeated command, or nil
local function reply(word, now, state, call, event, patch, record)
  local replayed = ''
  if record then replayed = record.created ~= '' and record.epoch .. ' ' .. record.version or 'deleted' end
  return {word, now, state, event or '', patch or '', call.nudge or 0, replayed, call.expired_id or '',
    call.session_us, call.principal_us}
end

-- Refuse a command. If there is a session, the reply has its state.
local function refuse(word, now, session, call)
  return reply(word, now, session and state_for(session, call) or {}, call)
end
