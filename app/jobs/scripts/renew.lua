-- Prolong the claims of worker processes that are at work.
-- ARGV: lease ms, holder, holder, …
local expiry = now_ms() + tonumber(ARGV[1])
for i = 2, #ARGV do
  for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. ARGV[i])) do
    redis.call('ZADD', LEASES, 'XX', expiry, id)
  end
end
