-- Let a process hear of each change of batches.
-- ARGV: its channel's name, then batch ids
-- Returns each batch's record, fields and values in turn; empty where there is none
go_beyond_memory_limit()
local name, records = ARGV[1], {}
for i = 2, #ARGV do
  local record = BATCH .. ARGV[i]
  local fields = redis.call('HMGET', record, 'total', 'has_ended', 'watchers')
  if fields[1] and not fields[2] and not string.find(fields[3] or '', name, 1, true) then
    redis.call('HSET', record, 'watchers', (fields[3] or '') .. ' ' .. name)
  end
  records[#records + 1] = redis.call('HGETALL', record)
end
return records
