-- Quotas of a principal's creates, and of its tenant; only for calls that use some of a quota, so not for a plain
-- switch. A quota over time is a bucket as in _limits, but one command may take more than one token of it.
-- @include _clock
-- @include _bucket

-- The numbers of quotas in a refusal.
local CREATES, LIVE_SESSIONS, BYTES, COMMITS = 1, 2, 3, 4
local HOUR_MS = 3600000

-- The part of an hour's commits (µs) that the session has not paid for: a pause and a resume must not pay twice.
local function unpaid(paid_until_ms, now_ms, commit_us)
  local paid_ms = (paid_until_ms or 0) - now_ms
  return math.floor(commit_us * (1 - math.max(0, math.min(paid_ms, HOUR_MS)) / HOUR_MS))
end

-- Check the quotas of a tenant. Returns the number of the one that refuses, and the wait (µs); or nil, 0, and when its
-- buckets of bytes and of commits are full again (µs) with this command, each nil if it takes nothing.
local function check_tenant(key, tenant, now_ms, most, size_us, bytes_us, commit_us, commits_us)
  local now_us, wait_us = now_ms * 1000, nil
  local live, bytes, commits =
    unpack(redis.call('ZMSCORE', key, 'live:' .. tenant, 'bytes:' .. tenant, 'commits:' .. tenant))
  if most ~= '' and (live or 0) - most >= 0 then return LIVE_SESSIONS, 0 end
  bytes, wait_us = taken(bytes, now_us, size_us, bytes_us)
  if wait_us > 0 then return BYTES, wait_us end
  commits, wait_us = taken(commits, now_us, commit_us, commits_us)
  if wait_us > 0 then return COMMITS, wait_us end
  return nil, 0, bytes, commits
end

-- Take from the quotas of a tenant what check_tenant has found. live: sessions to add, or nil.
local function charge_tenant(key, tenant, live, bytes, commits)
  if live then redis.call('ZADD', key, 'INCR', live, 'live:' .. tenant) end
  if bytes then redis.call('ZADD', key, bytes, 'bytes:' .. tenant) end
  if commits then redis.call('ZADD', key, commits, 'commits:' .. tenant) end
end

-- The reply that refuses a command because of a quota.
local function quota_refusal(now_ms, quota, wait_us)
  return {'rate_limited', now_ms, -1, -1, quota, wait_us}
end

-- Check the quotas. Returns the reply that refuses the command: {word, now, -1, -1, number of the quota, wait_us}; or
-- nil and a function that takes from the quotas what the command costs. _commit calls it if the command takes effect; a
-- command that is refused later, or is a replay, costs nothing.
--   call.limits  after those of _limits: cost_us and burst_us of creates; the maximum of live sessions, or '' if the
--                command adds none; cost_us and burst_us of bytes in the store, and of commits that sessions make by
--                themselves. A cost is at most the burst.
local function check_quotas(keys, call)
  local create_us, creates_us, most, size_us, bytes_us, commit_us, commits_us =
    string.match(call.limits, '^%d+ %d+ %d+ %d+ (%d+) (%d+) (%d*) (%d+) (%d+) (%d+) (%d+)$')
  local tenant = string.match(call.session_id, '^(.*)/') or 'default'
  local now_ms = server_now_ms()
  local creates = keys.creates and redis.call('GET', keys.creates)
  local quota, wait_us, bytes, commits
  creates, wait_us = taken(creates, now_ms * 1000, create_us, creates_us)
  if wait_us > 0 then return quota_refusal(now_ms, CREATES, wait_us) end
  if commit_us ~= '0' then
    commit_us = unpaid(redis.call('HGET', keys.session, 'commits_paid_ms'), now_ms, commit_us)
  end
  quota, wait_us, bytes, commits =
    check_tenant(keys.tenants, tenant, now_ms, most, size_us, bytes_us, commit_us, commits_us)
  if quota then return quota_refusal(now_ms, quota, wait_us) end
  return nil, function()
    if creates then write_bucket(keys.creates, creates) end
    charge_tenant(keys.tenants, tenant, most ~= '' and 1 or nil, bytes, commits)
    if commits then call.commits_paid_ms = now_ms + HOUR_MS end
  end
end
