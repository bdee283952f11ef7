-- What is due happens first, at its own instant, however late it is noticed (docs/clock.md).
-- @include _commit

local MOST_DUE = 64

-- Apply what is due at `now`; returns whether that was all. Sets call.expired_id when someone is found
-- out of time; call.instants lists when what was applied took effect.
local function settle(session, keys, call, now)
  call.instants = call.instants or {}
  if not session.look_ms or session.look_ms > now then return true end
  -- Most calls find nothing due: what applies it is defined here, for those that do.
  -- @include _due
  for _ = 1, MOST_DUE do
    if not settle_one(session, keys, call, now) then return true end
  end
  return false
end
