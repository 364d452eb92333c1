-- Say where claimed jobs are.
-- ARGV: progress, stage, id, attempt, id, attempt, …
-- Returns the ids that need no more work: their claims are out of date, or their owners have asked to
-- cancel them
local progress, stage = tonumber(ARGV[1]), ARGV[2]
go_beyond_memory_limit()
local unwanted = {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local record = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'progress', 'watchers', 'cancel')
  if record[1] ~= 'processing' or record[2] ~= ARGV[i + 1] or record[5] then
    unwanted[#unwanted + 1] = id
  elseif tonumber(record[3]) < progress then
    redis.call('HSET', JOB .. id, 'progress', progress, 'stage', stage, 'updated', stamp)
    tell_watchers(id, record[4], false)
  end
end
send_news()
return unwanted
