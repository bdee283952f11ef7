-- How full the server is, and what is refused before the server is full.

-- Used memory in percent of maxmemory, as the server itself counts it; 0 without a limit, or if the server does
-- not report it.
local function memory_percent()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return 0 end
  local function bytes(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)')) or 0 end
  local limit = bytes('maxmemory')
  return limit > 0 and 100 * (bytes('used_memory') - bytes('mem_not_counted_for_evict')) / limit or 0
end

-- The reply word if a new session must be refused, or nil.
--   most_waiting  events that may wait in the bucket's outbox, 0 for any number
--   most_percent  share of maxmemory that may be used, 0 for all of it
local function refuses_new(keys, most_waiting, most_percent)
  if most_waiting > 0 and redis.call('XLEN', keys.outbox) >= most_waiting then return 'audit_backlog' end
  return most_percent > 0 and memory_percent() >= most_percent and 'store_full' or nil
end

-- Whether to refuse a command that a full server accepts (allow-oom) although it has nothing to do: it would only add
-- the record of its idempotency key.
local function refuses_record(keys)
  return keys.idempotency and memory_percent() >= 100
end
