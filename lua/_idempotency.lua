-- Idempotency records: what a replay needs besides the session itself, in at most 1,024 bytes (docs/keys.md).
-- @include _session

local MAX_RECORD_BYTES = 1024
local RECORD_PATTERN = '^(%x+)\n(%d*) ?(%d*) ?(%d*)\n([^\n]*)\n([^\n]*)\n([^\n]*)$'

-- The text of a record, in lines: fingerprint; epoch, version and created_ms after the command, or nothing if it left
-- no session; id of the expired participant; event; patch. JSON texts contain no line breaks. If the text would be too
-- long, the patch is left out, then the event.
local function idempotency_record(session, call, event, patch)
  local place = session and int(session.epoch) .. ' ' .. int(session.version) .. ' ' .. int(session.created_ms) or ''
  local head = call.fingerprint .. '\n' .. place .. '\n' .. (call.expired_id or '') .. '\n'
  local room = MAX_RECORD_BYTES - #head - 1
  event, patch = event or '', patch or ''
  if #event > room then event = '' end
  if event == '' or #event + #patch > room then patch = '' end
  return head .. event .. '\n' .. patch
end

-- Read a record of the previous release: a JSON list whose sixth item, if any, is the session's scalars.
local function previous_record(text)
  local list = cjson.decode(text)
  local until_created = '^(%d+) (%d+) ' .. string.rep('[^ ]* ', 13) .. '(%d+)'
  local epoch, version, created = string.match(list[6] or '', until_created)
  return {fingerprint = list[1], epoch = epoch or '', version = version or '', created = created or '',
    expired_id = list[3], event = list[4], patch = list[5]}
end

local function read_record(text)
  if string.sub(text, 1, 1) == '[' then return previous_record(text) end
  local fingerprint, epoch, version, created, expired_id, event, patch = string.match(text, RECORD_PATTERN)
  return {fingerprint = fingerprint, epoch = epoch, version = version, created = created, expired_id = expired_id,
    event = event, patch = patch}
end
