-- How full the server is, and what is refused before or when it is full.

-- Used memory in percent of maxmemory, as the server itself counts it. 0 if there is no limit, or if the server does
-- not report it.
local function memory_percent()
  local info = redis.pcall('INFO', 'memory')
  if type(info) ~= 'string' then return 0 end
  local function bytes(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)')) or 0 end
  local limit = bytes('maxmemory')
  return limit > 0 and 100 * (bytes('used_memory') - bytes('mem_not_counted_for_evict')) / limit or 0
end

-- The reply word that refuses a new session, or nil.
--   max_outbox_events   maximum events in the bucket's outbox; 0 for no limit
--   max_memory_percent  maximum used memory in percent of maxmemory; 0 for no limit
local function new_session_refusal(keys, max_outbox_events, max_memory_percent)
  if max_outbox_events > 0 and redis.call('XLEN', keys.outbox) >= max_outbox_events then return 'audit_backlog' end
  return max_memory_percent > 0 and memory_percent() >= max_memory_percent and 'store_full' or nil
end

-- Whether a command that changes nothing must be refused because the server is full and the command would add an
-- idempotency record. Scripts with the flag allow-oom need this check: the server itself refuses nothing they write.
local function cannot_add_record(keys)
  return keys.idempotency and memory_percent() >= 100
end
