-- Replies: a word first, then data. syncapp/errors.py maps each word to what a client sees.
-- @include _session

local DEFINITION = 3  -- its place in a state, after scalars and metadata
local TAGS = 4

-- What a completed session keeps of its end, as JSON; false if there is nothing.
local function completion_of(session)
  return session.status == 'completed' and redis.call('HGET', session.key, 'completion')
end

-- The same as a word after the tags; '' if there is nothing.
local function completion_word(session)
  local completion = completion_of(session)
  return completion and ' completion=' .. string.gsub(completion, ' ', '\\u0020') or ''
end

-- The whole state as a list of strings: scalars, metadata, definition, tags, blocks.
-- Left out, as '', is what the caller has: the definition when it knows the epoch, and then blocks
-- whose tags it names. So a reply stays small with many participants.
local function state_of(session, known_epoch, known_tags)
  local known = known_epoch == int(session.epoch)
  local definition = known and '' or redis.call('HGET', session.key, 'definition')
  local state = {session.scalars, session.metadata, definition, ''}
  local tags = session.block_tags
  state[TAGS] = (tags and table.concat(tags, ' ') or '') .. completion_word(session)
  local same = tags and known and split(known_tags) or {}
  for number, name in ipairs(block_names(session)) do
    local has_it = tags and tags[number] == same[number]
    state[TAGS + number] = has_it and '' or session.blocks[name] or redis.call('HGET', session.key, name)
  end
  return state
end

local function state_for(session, call)
  return state_of(session, call.known_epoch, call.known_tags)
end

-- {word, now, state, event, patch, nudge, replayed, expired}: nudge is 1 when the bucket's outbox
-- wants draining, expired the id of the participant whose time has run out. replayed is '' for a command that was
-- executed now, else the epoch and version of its first result, or 'deleted'.
local function reply(word, now, state, call, event, patch, first)
  local replayed = ''
  if first then replayed = first.created ~= '' and first.epoch .. ' ' .. first.version or 'deleted' end
  return {word, now, state, event or '', patch or '', call.nudge or 0, replayed, call.expired_id or ''}
end

-- Refuse a command: nothing it asked for is written. The state tells the caller what is so.
local function refuse(word, now, session, call)
  return reply(word, now, session and state_for(session, call) or {}, call)
end

-- Accept a command that has nothing to change.
local function unchanged(now, session, call)
  return refuse('ok', now, session, call)
end
