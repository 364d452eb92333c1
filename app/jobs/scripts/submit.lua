-- Accept jobs: each once, however often it is sent.
-- ARGV: batch size, history length, then id, owner, id, owner, …
local batch, length = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, doorbells = now_ms(), count_doorbells(batch)
for i = 3, #ARGV, 2 do
  local id, owner = ARGV[i], ARGV[i + 1]
  if redis.call('EXISTS', JOB .. id) == 0 then
    enter(id, 'pending', 0, now, length, 'owner', owner, 'created', now)
    redis.call('RPUSH', QUEUE, id)
  end
end
ring_doorbells(doorbells, batch)
