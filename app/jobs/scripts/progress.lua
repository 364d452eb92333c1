-- Say where claimed jobs are. Out-of-date claims say nothing.
-- ARGV: progress, stage, id, attempt, id, attempt, …
local progress, stage = tonumber(ARGV[1]), ARGV[2]
go_beyond_memory_limit()
local now = now_ms()
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local record = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'progress', 'watchers')
  if record[1] == 'processing' and record[2] == ARGV[i + 1] and tonumber(record[3]) < progress then
    redis.call('HSET', JOB .. id, 'progress', progress, 'stage', stage, 'updated', now)
    tell_watchers(id, record[4], false)
  end
end
send_news()
