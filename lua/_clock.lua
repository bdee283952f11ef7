-- The server's time. Only this partial calls TIME; tests replace it to set the clock.
local function server_now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
