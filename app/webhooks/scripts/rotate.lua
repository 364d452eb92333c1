-- Give a webhook a new secret; the former ones sign too for a while.
-- ARGV: id, owner, new secret, ms for which the old one stays
-- Returns whether there is such a webhook, as 1 or 0
local key = WEBHOOK .. ARGV[1]
local record = redis.call('HMGET', key, 'owner', 'secret', 'former')
if record[1] ~= ARGV[2] then
  return 0
end
if record[2] == ARGV[3] then
  return 1
end

-- Each makes every delivery's header longer.
local MOST_FORMER = 3

local now = now_ms()
local former = {record[2] .. ':' .. now + ARGV[4]}
for secret, until_ms in string.gmatch(record[3] or '', '([^ :]+):(%d+)') do
  if tonumber(until_ms) > now and #former < MOST_FORMER then
    former[#former + 1] = secret .. ':' .. until_ms
  end
end
redis.call('HSET', key, 'secret', ARGV[3], 'former', table.concat(former, ' '))
return 1
