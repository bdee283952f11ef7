-- Restore a session from the audit log, in a new epoch. If an epoch and a version are expected, it replaces the stale
-- session that is at these; otherwise no session may have this id.
--
-- ARGV  16 last epoch in the log  17 SHA-1 of its last message  18 rule of the clock: run, freeze or credit
--       19 metadata as JSON text  20 action_on_timeout as JSON text  21 definition as JSON text
--       22 warning thresholds (ms), largest first, or ''  23 records of all participants, then of all groups
--       24 number of participants  25 number of scalars
--       26… name and text of each scalar; the parts of a new session, without budgets (_create)
-- Replies  ok · session_exists · version_conflict · not_found
-- Event  session_restored, then what is due
-- @include _restore
-- @include _command
-- @include _create
-- @include _arguments

local last_epoch, chain, rule, metadata, action_on_timeout = tonumber(ARGV[16]), ARGV[17], ARGV[18], ARGV[19], ARGV[20]
local definition, warn_at, records = ARGV[21], ARGV[22], ARGV[23]
local participant_count, scalar_count = tonumber(ARGV[24]), tonumber(ARGV[25])
local rest = {unpack(ARGV, 26)}

assert(last_epoch and chain and CLOCK_RULES[rule] and records and participant_count and scalar_count
  and tonumber(rest[2 * scalar_count + 3]), 'an argument is missing')
local now = server_now_ms()
local existing = load_session(keys.session)
if existing and call.expected_epoch == '' then return refuse('session_exists', now, existing, call) end
if existing and not is_expected(existing, call) then return refuse('version_conflict', now, existing, call) end
-- Refuse also if the session was deleted later than the log knows, or if the stale session no longer exists.
local epoch = existing and existing.epoch or tonumber(redis.call('HGET', keys.session, 'epoch')) or 0
if not existing and (epoch >= last_epoch or call.expected_epoch ~= '') then
  return refuse('not_found', now, nil, call)
end

check_all_permissions(keys)
local session = new_session(keys.session,
  {'definition', definition, 'action_on_timeout', action_on_timeout, 'chain', chain}, participant_count,
  {unpack(rest, 2 * scalar_count + 1)})
if existing then delete_hash(existing) end
set(session, 'metadata', metadata)
copy_logged_state(session, {unpack(rest, 1, 2 * scalar_count)}, records, warn_at)
session = write_restored(session, math.max(now, last_epoch + 1, epoch + 1))
now = math.max(now, session.updated_ms)
local at, elapsed = CLOCK_RULES[rule](session, now)
local event, patch = commit(session, keys, call, now, at, 'session_restored', with_active_ids(session, {
  remaining_ms = shown_text(session, at), reason = quote(rule),
}), 'system', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
