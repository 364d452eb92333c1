-- Let a process hear of the end of jobs.
-- ARGV: its channel's name, then ids
-- Returns each job's record, fields and values in turn; empty where there is none
go_beyond_memory_limit()
local records = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local watchers = redis.call('HMGET', JOB .. id, 'state', 'watchers')
  if watchers[1] == 'pending' or watchers[1] == 'processing' then
    watchers = watchers[2] or ''
    if not string.find(watchers, ARGV[1], 1, true) then
      redis.call('HSET', JOB .. id, 'watchers', watchers .. ' ' .. ARGV[1] .. '!')
    end
  end
  records[#records + 1] = redis.call('HGETALL', JOB .. id)
end
return records
