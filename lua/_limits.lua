-- The token buckets of the session and of the principal. A bucket is one instant (µs): the one at which it is full
-- again, its theoretical arrival time (GCRA). It gains a token in token_us, and a whole burst in burst_us.
-- @include _clock

-- Take a token from both buckets. Returns nil; or, if one of them has none, the reply that refuses the command: {word,
-- now, session_us, principal_us}, where the latter are as below with this token, and -1 for the bucket that does not
-- refuse it. Then nothing is written. Otherwise the principal's bucket is written here, and the session's with the
-- command's commit, if there is one: a command that is refused for another reason changes nothing in the session.
--   call.limits  token_us and burst_us of the session, then of the principal. token_us is 0 if there is no such limit,
--                or if an earlier call has paid for the command. In a cluster there is no key of the principal, because
--                charge_principal has taken its token; then after the session's follow `taken`, principal_us, and until
--                when (ms) the command pays for the session's own commits, 0 if it does not (charge_tenant).
-- Sets call.now_ms, call.limit_us (the session's bucket), call.fields (for load_session), and for the reply
-- call.session_us and call.principal_us: how long each bucket takes until it is full.
local function take_tokens(keys, call)
  local session_token_us, session_burst_us, token_us, burst_us, principal_us, paid_until_ms
  local now_ms = server_now_ms()
  local now_us = now_ms * 1000
  if keys.limits then
    session_token_us, session_burst_us, token_us, burst_us = string.match(call.limits, '(%d+) (%d+) (%d+) (%d+)')
    principal_us = (redis.call('GET', keys.limits) or 0) - now_us
    -- A bucket further ahead than its burst was written before the clock was set back. It counts as full.
    if principal_us < 0 or principal_us - burst_us > 0 then principal_us = 0 end
    principal_us = principal_us + token_us
    if principal_us - burst_us > 0 then return {'rate_limited', now_ms, -1, principal_us} end
  else
    session_token_us, session_burst_us, principal_us, paid_until_ms =
      string.match(call.limits, '^(%d+) (%d+) taken (%d+) (%d+)$')
    assert(paid_until_ms, 'a key is missing')
    principal_us = tonumber(principal_us)
    if paid_until_ms ~= '0' then call.commits_paid_ms = tonumber(paid_until_ms) end
  end
  -- A session is read only once, because reading it is a large part of a refusal's time.
  local fields = redis.call('HMGET', keys.session,
    'scalars', 'warn_at', 'block_tags', 'metadata', 'chain', 'p:0', 'g:0', 'c:0', 'rules', 'id:0', 'id:1', 'limit_us')
  local session_us = (fields[12] or 0) - now_us
  if session_us < 0 or session_us - session_burst_us > 0 then session_us = 0 end
  session_us = session_us + session_token_us
  if session_us - session_burst_us > 0 then return {'rate_limited', now_ms, session_us, -1} end
  if keys.limits then
    redis.call('SET', keys.limits, now_us + principal_us, 'PXAT', now_ms + math.ceil(principal_us / 1000) + 1)
  end
  call.now_ms, call.limit_us, call.fields = now_ms, now_us + session_us, fields
  call.session_us, call.principal_us = session_us, principal_us
end
