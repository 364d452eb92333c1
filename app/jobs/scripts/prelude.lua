-- Stands before every script. In place of names in capitals Redis gets the keys' names from
-- app/core/keys.py, the rules and texts from app/jobs/script.py.
--
-- A script is the only writer of a job's state, runs alone, and reads Redis's clock. Job records
-- are addressed by ids found in the queue, so the scripts need one Redis, not a Redis Cluster.

-- Redis prints a number that it is given as a float of 17 digits, which costs it as much as a small
-- command: what every job needs is given as text. Names are replaced in quotes, too: 'RESULT_TTL'
-- is '3600000'.
local function text(number)
  return string.format('%d', number)
end

-- This moment, in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = text(now)

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
-- ended: a message for each process and script. What is erased has an empty record by then.
local news = {}

-- A job's record as its readers get it, with the answer that it shares (see share_answer).
local function read_whole(id)
  local fields = redis.call('HGETALL', JOB .. id)
  local source, batch
  for i = 1, #fields, 2 do
    if fields[i] == 'answer' then
      source = fields[i + 1]
    elseif fields[i] == 'batch' then
      batch = fields[i + 1]
    end
  end
  local answer = source and redis.call('HGET', ANSWERS .. (batch or source), source)
  if answer then
    fields[#fields + 1] = 'result'
    fields[#fields + 1] = answer
  end
  return fields
end

-- `key`: of the record, if it is not a job's.
local function tell_watchers(id, watchers, has_ended, key)
  local item
  for watcher, end_only in string.gmatch(watchers or '', '([^ !]+)(!?)') do
    if has_ended or end_only == '' then
      item = item or {id, key and redis.call('HGETALL', key) or read_whole(id)}
      news[watcher] = news[watcher] or {}
      table.insert(news[watcher], item)
    end
  end
end

local function send_news()
  for watcher, items in pairs(news) do
    redis.call('PUBLISH', LIVE .. watcher, cjson.encode(items))
  end
end

-- What the unfinished jobs are more, and their uploads' bytes, by what this script did.
local more_jobs, more_bytes = 0, 0

local function change_backlog(jobs, bytes)
  more_jobs, more_bytes = more_jobs + jobs, more_bytes + bytes
end

local function write_backlog()
  if more_jobs ~= 0 or more_bytes ~= 0 then
    redis.call('INCRBY', BACKLOG_JOBS, text(more_jobs))
    redis.call('INCRBY', BACKLOG_BYTES, text(more_bytes))
  end
  more_jobs, more_bytes = 0, 0
end

-- What the jobs of batches did in this script: how much the counts by state change, who ended, and
-- who of these has no line in the results yet.
local batches = {}

local function note_in_batch(id, record, state)
  local changes = batches[record.batch] or {counts = {}, ended = {}, lines = {}}
  batches[record.batch] = changes
  if record.state then
    changes.counts[record.state] = (changes.counts[record.state] or 0) - 1
  end
  changes.counts[state] = (changes.counts[state] or 0) + 1
  if state ~= 'pending' and state ~= 'processing' then
    changes.ended[#changes.ended + 1] = id
    -- Once, though a dead letter that was retried ends again: its line stays where readers saw it.
    if redis.call('HSETNX', JOB .. id, 'line', 1) == 1 then
      changes.lines[#changes.lines + 1] = id
    end
  end
end

-- A batch has ended: it is kept for RESULT_TTL, and so are all of its jobs' records, which did not
-- expire before. Dead letters have an expiry of their own.
local function let_batch_expire(batch)
  for _, id in ipairs(redis.call('LRANGE', BATCH_JOBS .. batch, 0, -1)) do
    if redis.call('HEXISTS', JOB .. id, 'dead') == 0 then
      redis.call('PEXPIRE', JOB .. id, RESULT_TTL)
    end
  end
  for _, prefix in ipairs({BATCH, BATCH_JOBS, BATCH_ENDED, ANSWERS}) do
    redis.call('PEXPIRE', prefix .. batch, RESULT_TTL)
  end
end

local function keep_batch(batch)
  for _, prefix in ipairs({BATCH, BATCH_JOBS, BATCH_ENDED, ANSWERS}) do
    redis.call('PERSIST', prefix .. batch)
  end
end

-- Who reads of it in the history may find no record any more, or one that has changed since: all
-- that there is to tell is in the entry. Returns when that was: its clock has gone on since this
-- script began, and whoever hears of the end and looks at the batch reads the same time.
local function note_batch_end(batch)
  if HISTORY_LENGTH == 0 then
    return stamp
  end
  local fields = redis.call('HMGET', BATCH .. batch, 'owner', 'cancel', 'total', 'completed',
    'failed', 'cancelled')
  local counts = string.format('{"total":%d,"completed":%d,"failed":%d,"cancelled":%d}', fields[3],
    fields[4] or 0, fields[5] or 0, fields[6] or 0)
  -- As app.jobs.batch.Batch.state has it.
  local is_cancelled = fields[2] and tonumber(fields[6] or 0) > 0
  local entry = redis.call('XADD', HISTORY, 'MAXLEN', '~', 'HISTORY_LENGTH', '*', 'batch', batch,
    'state', is_cancelled and 'cancelled' or 'completed', 'owner', fields[1], 'counts', counts)
  return string.match(entry, '^%d+')
end

local function write_batches()
  for batch, changes in pairs(batches) do
    local record = BATCH .. batch
    if redis.call('EXISTS', record) == 1 then
      for state, number in pairs(changes.counts) do
        redis.call('HINCRBY', record, state, number)
      end
      redis.call('HSET', record, 'updated', stamp)
      redis.call('HINCRBY', record, 'changes', 1)
      if #changes.lines > 0 then
        redis.call('RPUSH', BATCH_ENDED .. batch, unpack(changes.lines))
      end
      local counts = redis.call('HMGET', record, 'pending', 'processing', 'has_ended', 'watchers')
      local has_ended = (counts[1] or 0) + (counts[2] or 0) == 0
      if has_ended and not counts[3] then
        redis.call('HSET', record, 'has_ended', 1, 'updated', note_batch_end(batch))
        let_batch_expire(batch)
      elseif counts[3] and not has_ended then
        -- An operator has retried one of its dead letters.
        redis.call('HDEL', record, 'has_ended')
        keep_batch(batch)
      end
      tell_watchers(batch, counts[4], has_ended, record)
    else
      -- Of a batch that has expired only a dead letter is left that was retried.
      for _, id in ipairs(changes.ended) do
        redis.call('PEXPIRE', JOB .. id, RESULT_TTL)
      end
    end
  end
  batches = {}
end

-- What a script has to do once, however many jobs made it necessary.
local at_conclusion

-- Every script that lets jobs come, go or wait ends with this.
local function conclude()
  if at_conclusion then
    at_conclusion()
  end
  write_backlog()
  write_batches()
  ring_doorbells()
  send_news()
end

-- Enter a state: the record, the history (capped, about), the live channel. Who reads of an end in
-- the history may find no record any more: it says whose job that was.
local function enter(id, record, state, progress, ...)
  redis.call('HSET', JOB .. id, 'state', state, 'progress', progress, 'stage', '',
    'updated', stamp, ...)
  if HISTORY_LENGTH > 0 then
    local is_end = record.owner and state ~= 'pending' and state ~= 'processing'
    redis.call('XADD', HISTORY, 'MAXLEN', '~', 'HISTORY_LENGTH', '*',
      'job', id, 'state', state, 'attempt', record.attempts,
      unpack(is_end and {'owner', record.owner} or {}))
  end
  if record.batch then
    note_in_batch(id, record, state)
  end
  record.state = state
  tell_watchers(id, record.watchers, state ~= 'pending' and state ~= 'processing')
end

-- What the functions below need of a record. `attempts` is the number of its last claim, 0 before.
local function read_record(id)
  local fields = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'holder', 'progress', 'claimed',
    'size', 'deadline', 'losses', 'retries', 'solo', 'dead', 'bulk', 'content',
    'watchers', 'cancel', 'options', 'batch', 'owner')
  return {
    state = fields[1], attempts = fields[2] or '0', holder = fields[3],
    progress = fields[4] or '0', claimed = tonumber(fields[5] or 0), size = fields[6],
    deadline = fields[7] and tonumber(fields[7]), losses = tonumber(fields[8] or 0),
    retries = tonumber(fields[9] or 0), solo = fields[10], dead = fields[11], bulk = fields[12],
    content = fields[13], watchers = fields[14], cancel = fields[15], options = fields[16],
    batch = fields[17], owner = fields[18],
  }
end

local function drop_claim(id, record)
  redis.call('ZREM', LEASES, id)
  if record.holder then
    redis.call('SREM', HOLDER .. record.holder, id)
  end
end

-- An attempt that came to nothing, for whoever looks into it later.
local function note_attempt(id, record, reason)
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
