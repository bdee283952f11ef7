-- Snapshots: the whole state in a message, from which a session can be restored (docs/keys.md).
-- @include _reply

local POSITIONAL = 25  -- scalars with a fixed position in a snapshot; later ones are written as name=text
local IN_SNAPSHOT = {metadata = POSITIONAL + 1, tags = POSITIONAL + 3}

-- The whole state as a list of strings, one for each scalar. Scalars that earlier releases do not know are written
-- where a reply has its tags: those releases read by position and ignore that one.
local function snapshot_of(session)
  local snapshot, named = {unpack(session.texts, 1, POSITIONAL)}, {}
  for i = POSITIONAL + 1, #SCALARS do
    if session.texts[i] ~= '' then named[#named + 1] = SCALARS[i] .. '=' .. session.texts[i] end
  end
  local state = state_of(session, '', '')
  state[TAGS] = table.concat(named, ' ') .. completion_word(session)
  for i = 2, #state do snapshot[#snapshot + 1] = state[i] end
  return snapshot
end
