#!lua flags=allow-oom
-- Give back to a tenant what charge_tenant has taken, because the command has taken no effect.
--
-- KEYS  1 quotas of tenants
-- ARGV  1 tenant  2 live sessions to give back, or '0'
--       3 cost_us of bytes, or '0'  4 when their bucket was full again with it (µs)
--       5 cost_us of commits, or '0'  6 when their bucket was full again with it (µs)
-- Replies  ok
-- Event  none
-- @include _quotas
-- @call

local key, tenant, live = KEYS[1], ARGV[1], tonumber(ARGV[2])
local size_us, bytes_us, commit_us, commits_us = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
assert(key and tenant and live and size_us and bytes_us and commit_us and commits_us, 'a part of the call is missing')

local now_ms = server_now_ms()
local bytes, commits = unpack(redis.call('ZMSCORE', key, 'bytes:' .. tenant, 'commits:' .. tenant))
bytes = size_us > 0 and bytes and bytes - probably_missing(now_ms * 1000, size_us, bytes_us) or nil
commits = commit_us > 0 and commits and commits - probably_missing(now_ms * 1000, commit_us, commits_us) or nil
charge_tenant(key, tenant, live > 0 and -live or nil, bytes, commits)

return {'ok', now_ms}
