-- Stands before every script, behind the constants: the keys' names from app/core/keys.py, the rules
-- and texts from app/jobs/script.py.
--
-- A script is the only writer of a job's state, runs alone, and reads Redis's clock. Job records
-- are addressed by ids found in the queue, so the scripts need one Redis, not a Redis Cluster.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What brings accepted jobs to their end must work while Redis is at its memory limit. Redis then
-- refuses a script whose first write may need memory, and only that: this write needs none.
local function go_beyond_memory_limit()
  redis.call('ZREM', LEASES, '')
end

-- Where a job waits, by the record's field `bulk`.
local function queue_of(bulk)
  return bulk and BULK_QUEUE or QUEUE
end

local function count_queued()
  return redis.call('LLEN', QUEUE) + redis.call('LLEN', BULK_QUEUE)
end

-- The doorbell rule: while jobs wait, the broker's list holds a message for each batch of them. Not
-- for more than so many batches: who answers one goes on while jobs wait, and each claim that leaves
-- some rings again.
local MOST_BELLS = 100

local function ring_doorbells()
  local batches = math.ceil(count_queued() / BATCH_SIZE)
  for _ = redis.call('LLEN', DOORBELLS) + 1, math.min(batches, MOST_BELLS) do
    local number = redis.call('INCR', BELLS_RUNG)
    redis.call('LPUSH', DOORBELLS, (string.gsub(BELL, BELL_ID, 'bell-' .. number)))
  end
end

-- Who watches a job gets its record after each change, or, with a '!' behind the name, once it has
-- ended: a message for each process and script.
local news = {}

local function tell_watchers(id, has_ended)
  local watchers = redis.call('HGET', JOB .. id, 'watchers')
  local item
  for watcher, end_only in string.gmatch(watchers or '', '([^ !]+)(!?)') do
    if has_ended or end_only == '' then
      item = item or {id, redis.call('HGETALL', JOB .. id)}
      news[watcher] = news[watcher] or {}
      table.insert(news[watcher], item)
    end
  end
end

-- Every script that changes jobs ends with this.
local function send_news()
  for watcher, items in pairs(news) do
    redis.call('PUBLISH', LIVE .. watcher, cjson.encode(items))
  end
end

-- Enter a state: the record, the history (capped, about), the live channel. `attempt` is the number
-- of the claim that it happens under, 0 before the first.
local function enter(id, state, attempt, progress, now, ...)
  redis.call('HSET', JOB .. id, 'state', state, 'progress', progress, 'stage', '',
    'updated', now, ...)
  if HISTORY_LENGTH > 0 then
    redis.call('XADD', HISTORY, 'MAXLEN', '~', HISTORY_LENGTH, '*',
      'job', id, 'state', state, 'attempt', attempt)
  end
  tell_watchers(id, state ~= 'pending' and state ~= 'processing')
end

-- What the functions below need of a record.
local function read_record(id)
  local fields = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'holder', 'progress', 'claimed',
    'size', 'deadline', 'losses', 'retries', 'solo', 'dead', 'bulk')
  return {
    state = fields[1], attempts = fields[2] or 0, holder = fields[3],
    progress = tonumber(fields[4] or 0), claimed = tonumber(fields[5] or 0), size = fields[6],
    deadline = fields[7] and tonumber(fields[7]), losses = tonumber(fields[8] or 0),
    retries = tonumber(fields[9] or 0), solo = fields[10], dead = fields[11], bulk = fields[12],
  }
end

local function drop_claim(id, record)
  redis.call('ZREM', LEASES, id)
  if record.holder then
    redis.call('SREM', HOLDER .. record.holder, id)
  end
end

-- An attempt that came to nothing, for whoever looks into it later.
local function note_attempt(id, record, reason, now)
  local note = cjson.encode({
    attempt = tonumber(record.attempts), worker = record.holder, started_ms = record.claimed,
    ended_ms = now, reason = reason,
  })
  local trail = redis.call('HGET', JOB .. id, 'trail')
  redis.call('HSET', JOB .. id, 'trail', trail and trail .. ',' .. note or note)
end

-- How many jobs wait: the unfinished ones but for those that are claimed. The queue's length would
-- not tell: ids of ended jobs stay in it until they are claimed.
local function count_waiting()
  return (redis.call('GET', BACKLOG_JOBS) or 0) - redis.call('ZCARD', LEASES)
end

-- The job no longer counts as work to do.
local function settle(id, record)
  redis.call('DECR', BACKLOG_JOBS)
  redis.call('DECRBY', BACKLOG_BYTES, record.size or 0)
  if record.deadline then
    redis.call('ZREM', DEADLINES, id)
  end
end

-- The one end of a job. Its upload can go: here, or by whoever gets its id from the script.
local function finish(id, record, attempt, state, progress, field, body, now)
  enter(id, state, attempt, progress, now, 'finished', now, field, body)
  redis.call('PEXPIRE', JOB .. id, RESULT_TTL)
  settle(id, record)
  if PAYLOADS_IN_REDIS then
    redis.call('UNLINK', PAYLOAD .. id)
  end
end

-- The same for a job that was given up: a dead letter keeps its upload.
local function bury(id, record, attempt, reason, body, now)
  enter(id, 'failed', attempt, record.progress, now, 'finished', now, 'error', body,
    'dead', reason)
  redis.call('PEXPIRE', JOB .. id, DEAD_LETTER_TTL)
  redis.call('ZADD', DEAD, now, id)
  settle(id, record)
  if PAYLOADS_IN_REDIS then
    redis.call('PEXPIRE', PAYLOAD .. id, DEAD_LETTER_TTL)
  end
end

-- A claim has come to nothing: the job goes back to the head of the queue. Unless it was handed
-- back in good health it runs alone from then on, since any member of its batch may have been the
-- reason, and is given up when that has happened too often.
-- Returns whether the job has ended and its upload can go.
local function take_back(id, reason, now)
  local record = read_record(id)
  drop_claim(id, record)
  if record.state ~= 'processing' then
    return false
  end
  note_attempt(id, record, reason, now)
  if reason ~= 'handed_back' then
    local losses = record.losses + 1
    redis.call('HSET', JOB .. id, 'losses', losses, 'solo', 1)
    if losses >= MAX_ATTEMPTS then
      local body = reason == 'timed_out' and TIMED_OUT or WORKER_LOST
      bury(id, record, record.attempts, reason, body, now)
      return false
    end
  end
  if record.deadline and record.deadline <= now then
    finish(id, record, record.attempts, 'failed', record.progress, 'error', DEADLINE_EXCEEDED, now)
    return true
  end
  enter(id, 'pending', record.attempts, 0, now)
  redis.call('LPUSH', queue_of(record.bulk), id)
  return false
end
