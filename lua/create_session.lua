-- Create a session if none has this id.
--
-- ARGV  16 mode  17 increment (ms)  18 type of action_on_timeout  19 idle timeout (ms)  20 session's budget (ms) or ''
--       21 time per cycle (ms) or ''  22 maximum cycles or ''  23 warning thresholds (ms), largest first, or ''
--       24 action_on_timeout as JSON text  25 metadata as JSON text  26 salt and digest of the metadata, or ''
--       27 definition as JSON text  28 maximum events in the outbox, '0' for no limit
--       29 maximum percent of maxmemory, '0' for no limit  30 number of participants
--       31… the parts of a new session (_create)
-- Replies  ok · session_exists · busy · idempotency_mismatch · session_gone · audit_backlog · store_full
-- Event  session_created
-- @include _memory
-- @include _command
-- @include _create
-- @include _arguments

local mode, increment_ms, on_timeout, idle_timeout_ms = ARGV[16], tonumber(ARGV[17]), ARGV[18], tonumber(ARGV[19])
local budget_ms, time_per_cycle_ms, max_cycles = tonumber(ARGV[20]), tonumber(ARGV[21]), tonumber(ARGV[22])
local warn_at, action_on_timeout, metadata, proof, definition = ARGV[23], ARGV[24], ARGV[25], ARGV[26], ARGV[27]
local max_outbox_events, max_memory_percent = tonumber(ARGV[28]), tonumber(ARGV[29])
local participant_count = tonumber(ARGV[30])
local parts = {unpack(ARGV, 31)}

assert(MODES[mode] and increment_ms and on_timeout and idle_timeout_ms and definition, 'an argument is missing')
assert(max_outbox_events and max_memory_percent and participant_count and tonumber(parts[3]), 'an argument is missing')
local now = server_now_ms()
local replayed = replay(keys, call, now)
if replayed then return replayed end
local existing = load_session(keys.session)
if existing then return refuse('session_exists', now, existing, call) end
local word = new_session_refusal(keys, max_outbox_events, max_memory_percent)
if word then return refuse(word, now, nil, call) end

-- A tombstone has the epoch and chain of a deleted session. A new session has a later epoch and continues the chain.
local tombstone = redis.call('HMGET', keys.session, 'epoch', 'updated_ms', 'chain')
now = math.max(now, (tonumber(tombstone[1]) or 0) + 1, tonumber(tombstone[2]) or 0)
local static = {'definition', definition}
if action_on_timeout ~= type_only(on_timeout) then static = {'action_on_timeout', action_on_timeout, unpack(static)} end
if warn_at ~= '' then static = {'warn_at', warn_at, unpack(static)} end
local session = new_session(keys.session, static, participant_count, parts)
session.chain = tombstone[3]
for name, value in pairs({
  epoch = now, version = 0, status = 'pending', sync_mode = mode, increment_ms = increment_ms,
  participant_count = participant_count, group_count = session.group_count, on_timeout = on_timeout,
  idle_timeout_ms = idle_timeout_ms, time_remaining_ms = budget_ms, time_per_cycle_ms = time_per_cycle_ms,
  time_used_ms = MODES[mode].budget == 's' and 0 or nil, max_cycles = max_cycles, warned = 0, crossed = 0,
  cycle_count = 0, created_ms = now, metadata = metadata, metadata_proof = proof ~= '' and proof or nil,
  metadata_version = 1,
}) do set(session, name, value) end

return answer(session, keys, call, now, commit(session, keys, call, now, now, 'session_created', {}, 'client'))
