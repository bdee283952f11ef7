-- How full the server is, and what is refused for it before the server refuses everything.

-- Used memory in percent of maxmemory, as the server itself counts it; 0 without a limit, and where the
-- server does not tell.
local function memory_percent()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return 0 end
  local function bytes(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)')) or 0 end
  local limit = bytes('maxmemory')
  return limit > 0 and 100 * (bytes('used_memory') - bytes('mem_not_counted_for_evict')) / limit or 0
end

-- The word that a new session is refused with, or nil.
--   most_waiting  events that may wait in the bucket's outbox, 0 for any number
--   most_percent  share of maxmemory that may be used, 0 for all of it
local function refuses_new(keys, most_waiting, most_percent)
  if most_waiting > 0 and redis.call('XLEN', keys.outbox) >= most_waiting then return 'audit_backlog' end
  return most_percent > 0 and memory_percent() >= most_percent and 'store_full' or nil
end

-- Whether a command of a script that a full server lets in (allow-oom) has to be refused all the same: it found
-- nothing to do, and all it would add is the record of its idempotency key.
local function refuses_record(keys)
  return keys.idempotency and memory_percent() >= 100
end
