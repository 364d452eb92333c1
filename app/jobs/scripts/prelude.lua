-- Stands before every script; the names of the keys come from app/core/keys.py, the doorbell's
-- message from app/jobs/doorbell.py.
--
-- A script is the only writer of a job's state, runs alone, and reads Redis's clock. Job records
-- are addressed by ids found in the queue, so the scripts need one Redis, not a Redis Cluster.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- More doorbells than this in one go would hold Redis up; the sweeper rings the rest.
local MAX_BELLS = 1000

-- The doorbell rule: never fewer messages outstanding than ⌈queue / batch⌉, since each claims up to
-- `batch` jobs. `left` are the messages that are there already.
local function ring_doorbells(left, batch)
  local due = math.ceil(redis.call('LLEN', QUEUE) / batch) - left
  for _ = 1, math.min(due, MAX_BELLS) do
    local number = redis.call('INCR', BELLS_RUNG)
    redis.call('LPUSH', DOORBELLS, (string.gsub(BELL, BELL_ID, 'bell-' .. number)))
  end
end

-- What the rule says is there, before this script changes the queue.
local function count_doorbells(batch)
  return math.ceil(redis.call('LLEN', QUEUE) / batch)
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
    redis.call('XADD', HISTORY, 'MAXLEN', '~', length, '*', 'job', id, 'state', state)
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
