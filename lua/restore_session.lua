-- Bring a session back from the audit log, in a new epoch: if there is none of this id, or instead of the one named.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 epoch of the stale session it takes the place of, or ''  3 that one's version, or ''
--       4 fingerprint or ''  5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 last epoch in the log  12 SHA-1 of its last message  13 rule of the clock: run, freeze or credit
--       14 metadata as JSON text  15 action_on_timeout as JSON text  16 definition as JSON text
--       17 warning thresholds (ms) from the largest, or ''  18 records of participants, then of groups
--       19 number of participants  20 number of scalars
--       21… name and text of each scalar; id, zero and group index or '' of each participant; id and zero of each group
-- Replies  ok · session_exists · version_conflict · not_found
-- Event  session_restored, then what is due
-- @include _command
-- @include _create
-- @include _restore

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local last_epoch, chain, rule, metadata, action_on_timeout = tonumber(ARGV[11]), ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local definition, warn_at, records, people, count = ARGV[16], ARGV[17], ARGV[18], tonumber(ARGV[19]), tonumber(ARGV[20])
local rest = {unpack(ARGV, 21)}

check_call(keys, call)
assert(last_epoch and chain and RULES[rule] and records and people and count and #rest >= 2 * count + 3 * people)
local now = server_now_ms()
local existing = load_session(keys.session)
if existing and call.expected_epoch == '' then return refuse('session_exists', now, existing, call) end
if existing and not is_expected(existing, call) then return refuse('version_conflict', now, existing, call) end
-- It was deleted, and the log does not know it yet; or the stale one is gone already.
local epoch = existing and existing.epoch or tonumber(redis.call('HGET', keys.session, 'epoch')) or 0
if not existing and (epoch >= last_epoch or call.expected_epoch ~= '') then
  return refuse('not_found', now, nil, call)
end

check_all_rights(keys)
if existing then clear(existing) end
local first_group = 2 * count + 3 * people + 1
local session = new_session(keys.session, {unpack(rest, 2 * count + 1, first_group - 1)}, {unpack(rest, first_group)},
  {'definition', definition, 'action_on_timeout', action_on_timeout, 'chain', chain})
set(session, 'metadata', metadata)
take_over(session, {unpack(rest, 1, 2 * count)}, records, warn_at)
session = lay_down(session, math.max(now, last_epoch + 1, epoch + 1))
now = math.max(now, session.updated_ms)
local at, elapsed = RULES[rule](session, now)
local event, patch = commit(session, keys, call, now, at, 'session_restored', concerning(session, {
  remaining_ms = shown_text(session, at), reason = quote(rule),
}), 'system', elapsed)
settle(session, keys, call, now)

return answer(session, keys, call, now, event, patch)
