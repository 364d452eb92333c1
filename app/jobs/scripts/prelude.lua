-- Stands before every script; the names of the keys come from app/core/keys.py.
--
-- A script is the only writer of a job's state, runs alone, and reads Redis's clock. Job records
-- are addressed by ids found in the queue, so the scripts need one Redis, not a Redis Cluster.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Messages that must be outstanding for a queue of this length when each claims up to `batch`.
local function bells(length, batch)
  return math.ceil(length / batch)
end

local function publish(id, state, progress, stage, now)
  redis.call('PUBLISH', EVENTS, cjson.encode({
    job_id = id, status = state, progress = progress, stage = stage, updated_ms = now,
  }))
end

-- Enter a state: the record, the history (capped, about `length` entries), the live channel.
local function enter(id, state, progress, now, length, ...)
  redis.call('HSET', JOB .. id, 'state', state, 'progress', progress, 'stage', '',
    'updated', now, ...)
  if length > 0 then
    redis.call('XADD', HISTORY, 'MAXLEN', '~', length, '*', 'job', id, 'state', state, 'at', now)
  end
  publish(id, state, progress, '', now)
end

-- The claim ends, whoever ends it.
local function drop_claim(id, holder)
  redis.call('ZREM', LEASES, id)
  redis.call('SREM', HOLDER .. holder, id)
end

local function finish(id, state, progress, field, body, now, ttl, length)
  enter(id, state, progress, now, length, 'finished', now, field, body)
  redis.call('EXPIRE', JOB .. id, ttl)
end

-- A job whose worker process is gone: back to the head of the queue, to run alone since any
-- member of its batch may have killed it; or failed, when it has lost enough workers.
-- Returns whether the job failed.
local function recover(id, now, max_attempts, exhausted, ttl, length)
  local record = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'holder')
  if record[3] then
    drop_claim(id, record[3])
  else
    redis.call('ZREM', LEASES, id)
  end
  if record[1] ~= 'processing' then
    return false
  end
  if tonumber(record[2]) >= max_attempts then
    finish(id, 'failed', 0, 'error', exhausted, now, ttl, length)
    return true
  end
  enter(id, 'pending', 0, now, length, 'solo', 1)
  redis.call('LPUSH', QUEUE, id)
  return false
end
