-- Check that the server accepts all writes of a commit. Raises the first refusal as an error. Needs an idempotency key:
-- its record is written with a lifetime of one second. In place of a state, the reply has the commands that the worker
-- needs but may not use.
--
-- Replies  ok
-- Event  none
-- @include _command
-- @include _readiness
-- @include _arguments

assert(keys.idempotency, 'a key is missing')
check_all_permissions(keys)
check_read_permissions(keys)
write_probe(keys)

return reply('ok', server_now_ms(), missing_audit_permissions(keys), call)
