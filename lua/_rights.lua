-- The rights that a commit needs. A script that is refused halfway leaves half a commit behind, so the user's rights
-- are checked before the first write; docs/keys.md lists them. A check takes about a third of a microsecond.

local function need(...)
  if not redis.acl_check_cmd(...) then error({err = 'NOPERM this user may not ' .. (...)}) end
end

-- Raise NOPERM if a write that every commit makes is not allowed, and WRONGTYPE if a key that it adds to has another
-- type. HSET is not checked: it is the first write.
local function check_rights(keys)
  redis.call('ZCARD', keys.deadlines)
  redis.call('XLEN', keys.outbox)
  need('ZADD', keys.deadlines, '1', '')
  need('XADD', keys.outbox, '*', 'f', '')
  need('SET', keys.nudge, '')
  if keys.idempotency then need('SET', keys.idempotency, '') end
  need('PUBLISH', keys.channel, '')
  need('HGET', keys.session, 'f')
end

-- The same for commits that begin, end, replace or remove a session.
local function check_all_rights(keys)
  check_rights(keys)
  redis.call('ZCARD', keys.listed)
  need('ZADD', keys.listed, '1', '')
  need('ZREM', keys.listed, '')
  need('HSET', keys.session, 'f', '')
  need('HDEL', keys.session, 'f')
  need('PERSIST', keys.session)
  need('PEXPIREAT', keys.session, '1')
  need('DEL', keys.session)
  need('ZREM', keys.deadlines, '')
end

-- The rights that commands, the sweeper and fan-out need for reading; without them nothing is written either.
local function check_reading_rights(keys)
  need('HMGET', keys.session, 'f')
  need('GET', keys.idempotency)
  need('XLEN', keys.outbox)
  need('ZRANGE', keys.deadlines, '0', '1')
  need('SUBSCRIBE', keys.channel)
end

-- Returns what the worker may not do; audit events wait then. Consumer groups are made by a script of its own.
local function missing_audit_rights(keys)
  local missing = {}
  for _, command in ipairs({
    {'XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', keys.outbox, '>'}, {'XAUTOCLAIM', keys.outbox, 'g', 'c', '0', '0'},
    {'XACK', keys.outbox, 'g', '0-1'}, {'XDEL', keys.outbox, '0-1'}, {'XRANGE', keys.outbox, '-', '+'},
    {'XPENDING', keys.outbox, 'g'}, {'XGROUP', 'CREATE', keys.outbox, 'g', '0'},
  }) do
    if not redis.acl_check_cmd(unpack(command)) then missing[#missing + 1] = command[1] end
  end
  return missing
end

-- Check, once, the rights that the commits of this call need. Something due as well, or right after the first commit,
-- may end the session.
local function check_rights_of(session, keys, call, now, actor)
  if call.may_write then return end
  local is_plain = actor == 'client' and not session.changed.status and session.look_ms and session.look_ms > now
  if is_plain and not session.static then check_rights(keys) else check_all_rights(keys) end
  call.may_write = true
end
