-- The keys and arguments that all commands share, in the tables `keys` and `call`. This is the only partial that reads
-- KEYS and ARGV. A command reads only its own arguments, from ARGV[16] on.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed
--       7 idempotency record  8 limits of the principal  9 quotas of tenants  10 creates of the principal; each only if
--       the call has it, and then in this order; the last three never in a cluster, where they are in other slots
-- ARGV  1 qualified session id  2 expected epoch or ''  3 expected version or ''
--       4 fingerprint of the command, or '' if the call has no idempotency key
--       5 request id  6 epoch that the caller has cached, or ''  7 block tags that the caller has cached, or ''
--       8 lifetime of a finished or deleted session (ms)  9 lifetime of an idempotency record (ms)
--       10 maximum unattended cycles  11 JSON members that name the session in messages
--       12 id of the token as JSON text, or ''
--       13 JSON members with the digests of private parts, or ''  14 JSON members with these parts, or ''
--       15 limits (_limits), or '' if there are none
-- Replies  rate_limited
-- @include _limits
-- @include _quotas
-- @call
local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5], listed = KEYS[6],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), max_unattended_cycles = ARGV[10],
  names = ARGV[11], token_id = ARGV[12], private_digests = ARGV[13], private_parts = ARGV[14], limits = ARGV[15],
  waits_for_lag = nil, messages = nil, permissions_checked = nil, nudge = nil,  -- makes room for these at once
}
local first, second, third, fourth = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
if call.fingerprint ~= '' then keys.idempotency, first, second, third, fourth = first, second, third, fourth, nil end
if call.limits ~= '' then keys.limits, keys.tenants, keys.creates, first = first, second, third, fourth end

-- A malformed call fails here, before anything is written. Neither list has gaps.
assert(keys.listed, 'a key is missing')
assert(call.limits and call.session_ttl_ms and call.idempotency_ttl_ms, 'an argument is missing')
assert((call.fingerprint ~= '') == (keys.idempotency ~= nil), 'an idempotency record needs a fingerprint')
assert(not first, 'a key is not needed')

-- Limits are decided before anything else.
if call.limits ~= '' then
  local refusal
  if keys.tenants then refusal, call.charge_quotas = check_quotas(keys, call) end
  refusal = refusal or take_tokens(keys, call)
  if refusal then return refusal end
end
