-- Accept jobs: each once, however often it is sent.
-- ARGV: batch size, history length, then id, owner, id, owner, …
-- Returns the doorbells to ring
local batch, length = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = now_ms()
local before = redis.call('LLEN', QUEUE)
for i = 3, #ARGV, 2 do
  local id, owner = ARGV[i], ARGV[i + 1]
  if redis.call('EXISTS', JOB .. id) == 0 then
    enter(id, 'pending', 0, now, length, 'owner', owner, 'created', now)
    redis.call('RPUSH', QUEUE, id)
  end
end
return bells(redis.call('LLEN', QUEUE), batch) - bells(before, batch)
