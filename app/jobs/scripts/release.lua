-- A worker process is gone: what it held goes back at once.
-- ARGV: holder, batch size, max attempts, error body when exhausted, result ttl s, history length
-- Returns {doorbells to ring, ids of jobs that failed …}
local holder, batch = ARGV[1], tonumber(ARGV[2])
local now, reply = now_ms(), {0}
local before = redis.call('LLEN', QUEUE)
for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. holder)) do
  if recover(id, now, tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])) then
    reply[#reply + 1] = id
  end
end
redis.call('DEL', HOLDER .. holder)
reply[1] = bells(redis.call('LLEN', QUEUE), batch) - bells(before, batch)
return reply
