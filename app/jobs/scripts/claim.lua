-- Answer a doorbell: give a worker process up to `batch` jobs.
-- ARGV: holder, batch size, lease ms, history length, model, version, engine
-- Returns {id, attempt, id, attempt, …}
local holder, batch, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local length, model, version, engine = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]

-- Ids of ended jobs are dropped on the way; so many at most in one go, for Redis runs nothing else
-- meanwhile. If more follow, the doorbell rule rings again.
local MAX_DROPPED = 1000

local now = now_ms()
local reply, count, dropped = {}, 0, 0
local doorbells = count_doorbells(batch)

local function give(id, attempt)
  redis.call('ZADD', LEASES, now + lease, id)
  reply[#reply + 1] = id
  reply[#reply + 1] = attempt
  count = count + 1
end

-- What this process already holds comes first: its last claim's answer was lost on the way.
for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. holder)) do
  local record = redis.call('HMGET', JOB .. id, 'state', 'attempts')
  if record[1] == 'processing' then
    give(id, tonumber(record[2]))
  else
    redis.call('SREM', HOLDER .. holder, id)
  end
end

while count < batch and dropped < MAX_DROPPED do
  local id = redis.call('LPOP', QUEUE)
  if not id then
    break
  end
  local record = redis.call('HMGET', JOB .. id, 'state', 'solo')
  if record[1] ~= 'pending' then
    dropped = dropped + 1
  elseif record[2] and count > 0 then
    redis.call('LPUSH', QUEUE, id)
    break
  else
    local attempt = redis.call('HINCRBY', JOB .. id, 'attempts', 1)
    enter(id, 'processing', 0, now, length, 'claimed', now, 'holder', holder,
      'model', model, 'version', version, 'engine', engine)
    redis.call('SADD', HOLDER .. holder, id)
    give(id, attempt)
    if record[2] then
      break
    end
  end
end

-- One doorbell is used up; those left must still cover the queue.
ring_doorbells(math.max(doorbells - 1, 0), batch)
return reply
