-- Prolong the claims of worker processes that are at work.
-- ARGV: holder, holder, …
go_beyond_memory_limit()
local expiry = now + LEASE
for _, holder in ipairs(ARGV) do
  for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. holder)) do
    redis.call('ZADD', LEASES, 'XX', expiry, id)
  end
end
