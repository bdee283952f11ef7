-- Create a session, if there is none of this id.
--
-- KEYS  1 session  2 deadlines  3 outbox  4 nudge  5 channel  6 listed  7 idempotency record, if there is a key
-- ARGV  1 session id  2 expected epoch or ''  3 expected version or ''  4 fingerprint or ''
--       5 request id  6 epoch that is known, or ''  7 tags of blocks that are known, or ''
--       8 session ttl ms  9 idempotency ttl ms  10 most unattended cycles
--       11 mode  12 increment ms  13 word of action_on_timeout  14 idle timeout ms  15 session's budget ms or ''
--       16 time per cycle ms or ''  17 most cycles or ''  18 warning thresholds (ms) from the largest, or ''
--       19 action_on_timeout as JSON text  20 metadata as JSON text  21 definition as JSON text
--       22 most events in the outbox, '0' for any  23 most of maxmemory used (percent), '0' for any  24 participants
--       25… id, budget (ms) and group index or '' of each; id and budget of each group
-- Replies  ok · session_exists · busy · idempotency_mismatch · session_gone · audit_backlog · store_full
-- Event  session_created
-- @include _memory
-- @include _command
-- @include _create

local keys = {
  session = KEYS[1], deadlines = KEYS[2], outbox = KEYS[3], nudge = KEYS[4], channel = KEYS[5],
  listed = KEYS[6], idempotency = KEYS[7],
}
local call = {
  session_id = ARGV[1], expected_epoch = ARGV[2], expected_version = ARGV[3], fingerprint = ARGV[4],
  request_id = ARGV[5], known_epoch = ARGV[6], known_tags = ARGV[7],
  session_ttl_ms = tonumber(ARGV[8]), idempotency_ttl_ms = tonumber(ARGV[9]), most_unattended = ARGV[10],
}
local mode, increment_ms, on_timeout, idle_timeout_ms = ARGV[11], tonumber(ARGV[12]), ARGV[13], tonumber(ARGV[14])
local budget_ms, time_per_cycle_ms, max_cycles = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local warn_at, action_on_timeout, metadata, definition = ARGV[18], ARGV[19], ARGV[20], ARGV[21]
local most_waiting, most_percent, people = tonumber(ARGV[22]), tonumber(ARGV[23]), tonumber(ARGV[24])
local rest = {unpack(ARGV, 25)}

check_call(keys, call)
assert(mode and increment_ms and on_timeout and idle_timeout_ms and definition)
assert(most_waiting and most_percent and people and #rest >= 3 * people)
local now = server_now_ms()
local replayed = replay(keys, call, now)
if replayed then return replayed end
local existing = load_session(keys.session)
if existing then return refuse('session_exists', now, existing, call) end
local refused = refuses_new(keys, most_waiting, most_percent)
if refused then return refuse(refused, now, nil, call) end

-- A deleted session leaves its epoch behind for a while: a new one is always later, and chained to it.
local last = redis.call('HMGET', keys.session, 'epoch', 'updated_ms', 'chain')
now = math.max(now, (tonumber(last[1]) or 0) + 1, tonumber(last[2]) or 0)
local static = {'definition', definition}
if action_on_timeout ~= type_only(on_timeout) then static = {'action_on_timeout', action_on_timeout, unpack(static)} end
if warn_at ~= '' then static = {'warn_at', warn_at, unpack(static)} end
local session = new_session(keys.session, {unpack(rest, 1, 3 * people)}, {unpack(rest, 3 * people + 1)}, static)
session.chain = last[3]
for name, value in pairs({
  epoch = now, version = 0, status = 'pending', sync_mode = mode, increment_ms = increment_ms,
  participant_count = session.participant_count, group_count = session.group_count, on_timeout = on_timeout,
  idle_timeout_ms = idle_timeout_ms, time_remaining_ms = budget_ms, time_per_cycle_ms = time_per_cycle_ms,
  time_used_ms = SESSION_BUDGET[mode] and 0 or nil, max_cycles = max_cycles, warned = 0, crossed = 0, cycle_count = 0,
  created_ms = now, metadata = metadata, metadata_version = 1,
}) do set(session, name, value) end

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_created', {}, 'client'))
