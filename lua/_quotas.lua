-- Quotas of a principal's creates, and of its tenant; only for calls that use some of a quota, so not for a plain
-- switch. A quota over time is a bucket as in _limits, but one command may take more than one token of it.
-- @include _clock

-- The numbers of quotas in a refusal.
local CREATES, LIVE_SESSIONS, BYTES, COMMITS = 1, 2, 3, 4
local HOUR_MS = 3600000

-- When a bucket is full again (µs) once the command has taken its part, or nil if it takes none; and the wait (µs)
-- until it has that part, at most 0 if it has.
local function taken(full_us, now_us, cost_us, burst_us)
  if cost_us == '0' then return nil, 0 end
  local ahead_us = (full_us or 0) - now_us
  if ahead_us < 0 or ahead_us - burst_us > 0 then ahead_us = 0 end
  return now_us + ahead_us + cost_us, ahead_us + cost_us - burst_us
end

-- The part of an hour's commits (µs) that the session has not paid for: a pause and a resume must not pay twice.
local function unpaid(keys, now_ms, commit_us)
  local paid_ms = (redis.call('HGET', keys.session, 'commits_paid_ms') or 0) - now_ms
  return math.floor(commit_us * (1 - math.max(0, math.min(paid_ms, HOUR_MS)) / HOUR_MS))
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
  local now_ms, wait_us = server_now_ms(), nil
  local now_us = now_ms * 1000
  local function refusal(quota) return {'rate_limited', now_ms, -1, -1, quota, wait_us} end
  local live, bytes, commits =
    unpack(redis.call('ZMSCORE', keys.tenants, 'live:' .. tenant, 'bytes:' .. tenant, 'commits:' .. tenant))
  local creates = keys.creates and redis.call('GET', keys.creates)
  creates, wait_us = taken(creates, now_us, create_us, creates_us)
  if wait_us > 0 then return refusal(CREATES) end
  if most ~= '' and (live or 0) - most >= 0 then return refusal(LIVE_SESSIONS) end
  bytes, wait_us = taken(bytes, now_us, size_us, bytes_us)
  if wait_us > 0 then return refusal(BYTES) end
  if commit_us ~= '0' then commit_us = unpaid(keys, now_ms, commit_us) end
  commits, wait_us = taken(commits, now_us, commit_us, commits_us)
  if wait_us > 0 then return refusal(COMMITS) end
  return nil, function()
    if creates then redis.call('SET', keys.creates, creates, 'PXAT', math.ceil(creates / 1000) + 1) end
    if most ~= '' then redis.call('ZADD', keys.tenants, 'INCR', 1, 'live:' .. tenant) end
    if bytes then redis.call('ZADD', keys.tenants, bytes, 'bytes:' .. tenant) end
    if commits then
      redis.call('ZADD', keys.tenants, commits, 'commits:' .. tenant)
      call.commits_paid_ms = now_ms + HOUR_MS
    end
  end
end
