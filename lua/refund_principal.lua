#!lua flags=allow-oom
-- Give back to a principal what charge_principal has taken, because the command has taken no effect.
--
-- KEYS  1 limits of the principal  2 creates of the principal
-- ARGV  1 instant (ms) of the charge  2 token_us to give back, or '0'  3 cost_us of creates, or '0'
-- Replies  ok
-- Event  none
-- @include _clock
-- @include _bucket
-- @call

local limits_key, creates_key = KEYS[1], KEYS[2]
local at_us, token_us, create_us = tonumber(ARGV[1]) * 1000, tonumber(ARGV[2]), tonumber(ARGV[3])
assert(limits_key and creates_key and token_us and create_us, 'a part of the call is missing')

local now_ms = server_now_ms()
local now_us = now_ms * 1000
if token_us > 0 then refund_bucket(limits_key, now_us, surely_missing(now_us, token_us, at_us)) end
if create_us > 0 then refund_bucket(creates_key, now_us, surely_missing(now_us, create_us, at_us)) end

return {'ok', now_ms}
