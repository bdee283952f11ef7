-- Permissions that commits do not need: only check_store checks them.
-- @include _acl

-- Raise NOPERM if a read of the commands, the sweeper or fan-out is not allowed.
local function check_read_permissions(keys)
  require_permission('HMGET', keys.session, 'f')
  require_permission('GET', keys.idempotency)
  require_permission('XLEN', keys.outbox)
  require_permission('ZRANGE', keys.deadlines, '0', '1')
  require_permission(SUBSCRIBE, keys.channel)
end

-- The commands that the worker needs but may not use; audit events wait until it may. The worker creates consumer
-- groups with a script of its own.
local function missing_audit_permissions(keys)
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
