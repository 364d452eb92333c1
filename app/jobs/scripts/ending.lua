-- How jobs end, and how those that share an image share the end.

-- The token of the request by which this owner erased a job.
local function find_eraser(id, owner)
  local mark = redis.call('GET', ERASED .. id)
  local token, eraser = string.match(mark or '', '^(%S+) (.*)$')
  return eraser == owner and token
end

-- The job no longer counts as work to do.
local function settle(id, record)
  change_backlog(-1, -(record.size or 0))
  if record.deadline then
    redis.call('ZREM', DEADLINES, id)
  end
end

-- Declared before what calls it: the end of one job may be that of others.
local share_end

-- The one end of a job. Its upload can go: here, or by whoever gets its id from the script.
local function finish(id, record, state, progress, field, body)
  enter(id, record, state, progress, 'finished', stamp, field, body)
  -- What came of a batch is kept until all of it can be read.
  if not record.batch then
    redis.call('PEXPIRE', JOB .. id, 'RESULT_TTL')
  end
  settle(id, record)
  if PAYLOADS_IN_REDIS then
    redis.call('UNLINK', PAYLOAD .. id)
  end
  share_end(id, record, state == 'completed', false)
end

-- Jobs that need their uploads no longer, because another ended or died.
local freed = {}

-- An ordinary failed job from now on.
local function let_go_of_dead_letter(id)
  redis.call('ZREM', DEAD, id)
  redis.call('HDEL', JOB .. id, 'dead')
  local batch = redis.call('HGET', JOB .. id, 'batch')
  local is_batch_open = batch and redis.call('HEXISTS', BATCH .. batch, 'created') == 1
    and redis.call('HEXISTS', BATCH .. batch, 'has_ended') == 0
  if is_batch_open then
    redis.call('PERSIST', JOB .. id)
  else
    redis.call('PEXPIRE', JOB .. id, RESULT_TTL)
  end
  if PAYLOADS_IN_REDIS then
    redis.call('UNLINK', PAYLOAD .. id)
  end
  freed[#freed + 1] = id
end

-- Where uploads lie in Redis, those of dead letters take this part of its memory at most.
local SHARE_OF_LETTERS = 8

local function find_letter_bytes()
  local limit = PAYLOADS_IN_REDIS
    and tonumber(string.match(redis.call('INFO', 'memory'), 'maxmemory:(%d+)')) or 0
  return limit > 0 and math.min(MAX_LETTER_BYTES, limit / SHARE_OF_LETTERS) or MAX_LETTER_BYTES
end

-- Each takes a few commands; what is left is let go after the next death.
local MOST_LET_GO = 1000

-- The latest dead letters are kept, as many as their number and their uploads' bytes allow, and the last
-- one in any case.
local function bound_dead_letters()
  local bytes, most_bytes, let_go = 0, find_letter_bytes(), 0
  for place, id in ipairs(redis.call('ZREVRANGE', DEAD, 0, MAX_LETTERS + MOST_LET_GO - 1)) do
    bytes = bytes + (redis.call('HGET', JOB .. id, 'size') or 0)
    local is_excess = place > MAX_LETTERS or (place > 1 and bytes > most_bytes)
    if is_excess and let_go < MOST_LET_GO then
      let_go_of_dead_letter(id)
      let_go = let_go + 1
    end
  end
end

-- The same for a job that was given up: a dead letter keeps its upload.
local function bury(id, record, reason, body)
  enter(id, record, 'failed', record.progress, 'finished', stamp, 'error', body, 'dead', reason)
  redis.call('PEXPIRE', JOB .. id, DEAD_LETTER_TTL)
  redis.call('ZADD', DEAD, now, id)
  settle(id, record)
  if PAYLOADS_IN_REDIS then
    redis.call('PEXPIRE', PAYLOAD .. id, DEAD_LETTER_TTL)
  end
  share_end(id, record, false, reason == 'worker_lost' or reason == 'timed_out')
  at_conclusion = bound_dead_letters
end

-- The end that a job's owner asked for.
local function cancel(id, record)
  finish(id, record, 'cancelled', record.progress, 'error', JOB_CANCELLED)
end

-- Give a pending job the answer of another, `source`. All jobs that are given it share one copy: an
-- answer may be a hundred times as long as the request for it. The copy outlives `source`; that of a
-- batch's jobs is kept with the batch.
local function share_answer(id, record, source)
  local answer = redis.call('HMGET', JOB .. source, 'result', 'model', 'version', 'engine')
  local shelf = ANSWERS .. (record.batch or source)
  redis.call('HSETNX', shelf, source, answer[1])
  redis.call('HINCRBY', shelf, source .. ' uses', 1)
  if not record.batch then
    redis.call('PEXPIRE', shelf, RESULT_TTL)
  end
  record.attempts = text(record.attempts + 1)
  enter(id, record, 'processing', '0', 'attempts', record.attempts, 'claimed', stamp,
    'model', answer[2], 'version', answer[3], 'engine', answer[4])
  finish(id, record, 'completed', '100', 'answer', source)
  freed[#freed + 1] = id
end

-- A job that others with the same content wait for has ended: they have its answer or, if there is
-- none, are queued after all, in their order, and to run alone if it may have killed its workers.
share_end = function(id, record, is_answered, is_suspect)
  if not record.content then
    return
  end
  if redis.call('HGET', FLIGHTS, record.content) == id then
    redis.call('HDEL', FLIGHTS, record.content)
  end
  if is_answered then
    remember_answer(id, record.content)
  end
  local followers = redis.call('LRANGE', FOLLOWERS .. id, 0, -1)
  redis.call('DEL', FOLLOWERS .. id)
  for i = #followers, 1, -1 do
    local follower = read_record(followers[i])
    if follower.state == 'pending' and is_answered then
      share_answer(followers[i], follower, id)
    elseif follower.state == 'pending' then
      if is_suspect then
        redis.call('HSET', JOB .. followers[i], 'solo', 1)
      end
      redis.call('LPUSH', queue_of(follower.bulk), followers[i])
    end
  end
end

-- A claim has come to nothing: the job goes back to the head of the queue. Unless it was handed
-- back in good health it runs alone from then on, since any member of its batch may have been the
-- reason, and is given up when that has happened too often. A job that was to be cancelled is.
-- Returns whether the job has ended and its upload can go.
local function take_back(id, reason)
  local record = read_record(id)
  drop_claim(id, record)
  if record.state ~= 'processing' then
    return false
  end
  if record.cancel then
    cancel(id, record)
    return true
  end
  note_attempt(id, record, reason)
  if reason ~= 'handed_back' then
    local losses = record.losses + 1
    redis.call('HSET', JOB .. id, 'losses', losses, 'solo', 1)
    if losses >= MAX_ATTEMPTS then
      local body = reason == 'timed_out' and TIMED_OUT or WORKER_LOST
      bury(id, record, reason, body)
      return false
    end
  end
  if record.deadline and record.deadline <= now then
    finish(id, record, 'failed', record.progress, 'error', DEADLINE_EXCEEDED)
    return true
  end
  enter(id, record, 'pending', '0')
  redis.call('LPUSH', queue_of(record.bulk), id)
  return false
end
