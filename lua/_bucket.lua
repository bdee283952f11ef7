-- Buckets of which a command may take more than one token (_quotas), and those that scripts of their own take from in a
-- cluster. The arithmetic is that of _limits.

-- How long (µs) a bucket takes until it is full. One further ahead than its burst was written before the clock was set
-- back, and counts as full.
local function ahead(full_us, now_us, burst_us)
  local ahead_us = (full_us or 0) - now_us
  if ahead_us < 0 or ahead_us - burst_us > 0 then return 0 end
  return ahead_us
end

-- When a bucket is full again (µs) once the command has taken its part, or nil if it takes none; and the wait (µs)
-- until it has that part, at most 0 if it has.
local function taken(full_us, now_us, cost_us, burst_us)
  if cost_us == '0' then return nil, 0 end
  local ahead_us = ahead(full_us, now_us, burst_us)
  return now_us + ahead_us + cost_us, ahead_us + cost_us - burst_us
end

-- Keep a bucket until it is full.
local function write_bucket(key, full_us)
  redis.call('SET', key, full_us, 'PXAT', math.ceil(full_us / 1000) + 1)
end

-- What of a cost (µs), taken at an instant (µs), may be given back to a principal. A part as long as the time since then
-- may have come back by itself, if the bucket would be full without the cost. It is not given back again, so that the
-- principal never gets more than its limit, whatever else is taken and given back meanwhile.
local function surely_missing(now_us, cost_us, taken_at_us)
  return math.max(0, math.min(cost_us, cost_us - (now_us - taken_at_us)))
end

-- What of a cost (µs) may be given back to a tenant, whose bucket was full again at full_us (µs) with the cost: what is
-- missing, unless something else was given back meanwhile; then perhaps more, but by no more than the command took.
-- To keep back as much as from a principal would let commands without effect use up the quota of all others.
local function probably_missing(now_us, cost_us, full_us)
  return math.max(0, math.min(cost_us, full_us - now_us))
end

-- Give something back to the bucket of a key.
local function refund_bucket(key, now_us, back_us)
  local full_us = redis.call('GET', key)
  if not full_us then return end
  if full_us - back_us > now_us then write_bucket(key, full_us - back_us) else redis.call('DEL', key) end
end
