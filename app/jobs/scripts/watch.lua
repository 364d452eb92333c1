-- Let a process hear of jobs: of each change, or of their end.
-- ARGV: its channel's name, then for each job id, whether it wants to hear of each change (1 or 0), …
-- Returns each job's record, fields and values in turn; empty where there is none
go_beyond_memory_limit()
local name = ARGV[1]
local records = {}
for i = 2, #ARGV, 2 do
  local id, wants_each = ARGV[i], ARGV[i + 1] == '1'
  local fields = redis.call('HMGET', JOB .. id, 'state', 'watchers')
  if fields[1] == 'pending' or fields[1] == 'processing' then
    local known = fields[2] or ''
    -- Who hears of each change hears of the end, too.
    local watchers = wants_each and string.gsub(known, name .. '!', name) or known
    if not string.find(watchers, name, 1, true) then
      watchers = watchers .. ' ' .. name .. (wants_each and '' or '!')
    end
    if watchers ~= known then
      redis.call('HSET', JOB .. id, 'watchers', watchers)
    end
  end
  records[#records + 1] = read_whole(id)
end
return records
