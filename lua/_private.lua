-- Private parts: values of a commit that may hold personal data (docs/audit.md). The hashed message has their digests.
-- The values, with the salts of their digests, travel beside that message, so that they can be erased.
-- @include _message
-- @include _snapshot

-- The salt and digest of the metadata, or nil. An earlier release may have replaced the metadata but not its proof, so
-- the stored proof ends with the SHA-1 of the metadata that it belongs to.
local function metadata_proof(session)
  if session.changed.metadata then return session.metadata_proof end
  local stored = redis.call('HGET', session.key, 'metadata_proof')
  local proof, of = string.match(stored or '', '^(%x+ %x+) (%x+)$')
  return of == redis.sha1hex(session.metadata) and proof or nil
end

-- The private parts of a commit, or nil if it has none. `digests` and `parts` are JSON members. `reason`, `metadata`
-- and `completion` tell which values only the published message has.
--   has_metadata  whether the message has the metadata
--   completion    JSON text of the completion, or nil
local function private_parts(session, call, actor, has_metadata, completion)
  local digests, parts = '', ''
  if actor == 'client' then digests, parts = call.private_digests, call.private_parts end
  if session.metadata == '{}' then has_metadata = false end
  if digests == '' and not has_metadata and not completion then return nil end
  local private = {reason = string.find(digests, '"reason":', 1, true)}
  local function add(name, value, proof)
    local salt, digest = string.match(proof or '', '^(%x+) (%x+)$')
    if not salt then return end
    local comma = digests ~= '' and ',' or ''
    digests = digests .. comma .. quote(name) .. ':' .. quote(digest)
    parts = parts .. comma .. quote(name) .. ':[' .. quote(salt) .. ',' .. value .. ']'
    private[name] = true
  end
  if has_metadata then add('metadata', session.metadata, metadata_proof(session)) end
  if completion then add('completion', completion, redis.call('HGET', session.key, 'completion_proof') or nil) end
  private.digests, private.parts = digests, parts
  return digests ~= '' and private or nil
end

-- Whether the published message differs from the hashed one.
local function hides_values(private)
  return private.reason or private.metadata or private.completion
end

-- The hashed message of a commit: with digests in place of the private values.
--   event, patch       as published
--   details            of the event; reason and result are removed from it if they are private
--   members            further JSON members, without the completion
--   completion_member  the completion as a further member, or ''
--   snapshot           a list in which private values are replaced, or nil
local function hashed_message(session, call, actor, elapsed, private, event, details, patch, members, completion_member,
    snapshot)
  if private.reason or private.completion and session.changed.completion then
    details.reason, details.result = nil, nil
    event = event_text(details)
  end
  if private.metadata and session.changed.metadata then patch = patch_of(session, true) end
  if not private.completion then members = members .. completion_member end
  if actor == 'client' and call.token_id ~= '' then members = members .. ',"jti":' .. call.token_id end
  if snapshot and private.metadata then snapshot[IN_SNAPSHOT.metadata] = '{}' end
  if snapshot and private.completion then
    snapshot[IN_SNAPSHOT.tags] = string.gsub(snapshot[IN_SNAPSHOT.tags], ' completion=.*$', '')
  end
  members = members .. ',"private":{' .. private.digests .. '}'
  return message_of(session, call, actor, elapsed, event, patch, members, snapshot)
end
