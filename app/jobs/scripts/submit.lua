-- Accept a job: once, however often it is sent.
-- ARGV: id, owner, batch size, history length
-- Returns {created ms, doorbells to ring}
local id, owner, batch, length = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local created = redis.call('HGET', JOB .. id, 'created')
if created then
  return {tonumber(created), 0}
end

local now = now_ms()
enter(id, 'pending', 0, now, length, 'owner', owner, 'created', now)
local waiting = redis.call('RPUSH', QUEUE, id)
return {now, bells(waiting, batch) - bells(waiting - 1, batch)}
