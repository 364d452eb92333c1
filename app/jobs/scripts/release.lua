-- A worker process is gone: what it held goes back at once.
-- ARGV: holder, batch size, max attempts, error body when exhausted, result ttl s, history length
-- Returns the ids of the jobs that failed
local holder, batch = ARGV[1], tonumber(ARGV[2])
local now, failed, doorbells = now_ms(), {}, count_doorbells(batch)
for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. holder)) do
  if recover(id, now, tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])) then
    failed[#failed + 1] = id
  end
end
redis.call('DEL', HOLDER .. holder)
ring_doorbells(doorbells, batch)
return failed
