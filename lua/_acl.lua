-- The permissions that a commit needs (docs/keys.md). A script that is refused halfway leaves half a commit behind, so
-- the user's permissions are checked before the first write. One check takes about a third of a microsecond.
-- @include _fanout

local function require_permission(...)
  if not redis.acl_check_cmd(...) then error({err = 'NOPERM this user may not ' .. (...)}) end
end

-- Raise NOPERM if a write that every commit makes is not allowed, and WRONGTYPE if a key that it adds to has another
-- type. HSET is not checked: it is the first write, so a refusal leaves nothing behind.
local function check_commit_permissions(keys)
  redis.call('ZCARD', keys.deadlines)
  redis.call('XLEN', keys.outbox)
  require_permission('ZADD', keys.deadlines, '1', '')
  require_permission('XADD', keys.outbox, '*', 'f', '')
  require_permission('SET', keys.nudge, '')
  if keys.idempotency then require_permission('SET', keys.idempotency, '') end
  if keys.tenants then require_permission('ZADD', keys.tenants, '1', '') end
  if keys.creates then require_permission('SET', keys.creates, '') end
  require_permission(PUBLISH, keys.channel, '')
  require_permission('HGET', keys.session, 'f')
end

-- The same for commits that create, finish, replace or delete a session.
local function check_all_permissions(keys)
  check_commit_permissions(keys)
  redis.call('ZCARD', keys.listed)
  require_permission('ZADD', keys.listed, '1', '')
  require_permission('ZREM', keys.listed, '')
  require_permission('HSET', keys.session, 'f', '')
  require_permission('HDEL', keys.session, 'f')
  require_permission('PERSIST', keys.session)
  require_permission('PEXPIREAT', keys.session, '1')
  require_permission('DEL', keys.session)
  require_permission('ZREM', keys.deadlines, '')
end

-- Check the permissions that this call's commits need, once per call. A client's commit needs only the common ones if
-- the status stays the same and nothing is due right after it. Any other commit may finish the session and needs all.
local function check_permissions(session, keys, call, now, actor)
  if call.permissions_checked then return end
  local is_plain = actor == 'client' and not session.changed.status and session.look_ms and session.look_ms > now
  if is_plain and not session.static then check_commit_permissions(keys) else check_all_permissions(keys) end
  call.permissions_checked = true
end
