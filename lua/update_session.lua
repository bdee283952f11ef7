-- Replace the metadata, if it is still at the version that the new document is based on.
--
-- ARGV  16 metadata version that the document is based on, or '' to get metadata_changed with the current state
--       17 metadata as JSON text  18 salt and digest of the metadata, or ''
-- Replies  ok · not_found · busy · version_conflict · idempotency_mismatch · session_gone · metadata_changed
-- Event  metadata_updated
-- @include _command
-- @include _arguments

local base_version, metadata, metadata_proof_arg = ARGV[16], ARGV[17], ARGV[18]

local session, now, early_reply = begin(keys, call)
if early_reply then return early_reply end
if base_version ~= int(session.metadata_version) then return refuse('metadata_changed', now, session, call) end

set(session, 'metadata', metadata)
set(session, 'metadata_proof', metadata_proof_arg)
set(session, 'metadata_version', session.version + 1)

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'metadata_updated', {}, 'client'))
