#!lua flags=allow-oom
-- Check the quotas of a tenant, and take from them what a command costs. Only in a cluster, as charge_principal. The
-- reply ok has until when (ms) the session has paid for commits, 0 if it pays for none now; and for refund_tenant each
-- cost, and when its bucket is full again with it (µs).
--
-- KEYS  1 quotas of tenants
-- ARGV  1 tenant  2 maximum of live sessions, or '' if the command adds none
--       3 cost_us of bytes  4 their burst_us  5 cost_us of commits  6 their burst_us
--       7 until when (ms) the session has paid for commits before
-- Replies  ok · rate_limited
-- Event  none
-- @include _quotas
-- @call

local key, tenant, most = KEYS[1], ARGV[1], ARGV[2]
local size_us, bytes_us, commit_us, commits_us, paid_until_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
assert(key and tenant and most and size_us and bytes_us and commit_us and commits_us and paid_until_ms,
  'a part of the call is missing')

local now_ms = server_now_ms()
if commit_us ~= '0' then commit_us = unpaid(paid_until_ms, now_ms, commit_us) end
local quota, wait_us, bytes, commits =
  check_tenant(key, tenant, now_ms, most, size_us, bytes_us, commit_us, commits_us)
if quota then return quota_refusal(now_ms, quota, wait_us) end
charge_tenant(key, tenant, most ~= '' and 1 or nil, bytes, commits)

return {'ok', now_ms, commits and now_ms + HOUR_MS or 0, size_us, bytes or 0, commit_us, commits or 0}
