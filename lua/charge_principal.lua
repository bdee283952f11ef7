#!lua flags=allow-oom
-- Take a token from a principal's bucket, and what a create costs from its quota. Only in a cluster, where these keys
-- are in another slot than the session's, and before the command's own script (syncapp/store/split_limits.py). The
-- reply ok has the instant (ms), principal_us (see _limits) and both costs, for refund_principal.
--
-- KEYS  1 limits of the principal  2 creates of the principal
-- ARGV  1 token_us, '0' without a limit or if an earlier call has paid  2 burst_us
--       3 cost_us of creates, '0' for none  4 their burst_us
-- Replies  ok · rate_limited
-- Event  none
-- @include _quotas
-- @call

local limits_key, creates_key = KEYS[1], KEYS[2]
local token_us, burst_us, create_us, creates_us = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
assert(limits_key and creates_key and token_us and burst_us and create_us and creates_us, 'a part of the call is missing')

local now_ms = server_now_ms()
local now_us = now_ms * 1000
local creates, wait_us = taken(redis.call('GET', creates_key), now_us, create_us, creates_us)
if wait_us > 0 then return quota_refusal(now_ms, CREATES, wait_us) end
local principal_us = ahead(redis.call('GET', limits_key), now_us, burst_us) + token_us
if principal_us - burst_us > 0 then return {'rate_limited', now_ms, -1, principal_us} end
if creates then write_bucket(creates_key, creates) end
if token_us ~= '0' then write_bucket(limits_key, now_us + principal_us) end

return {'ok', now_ms, principal_us, token_us, create_us}
