-- Accept jobs: each once, however often it is sent, while there is room.
-- ARGV: the sending process's channel, then for each job id, owner, upload's bytes, ms until its
-- deadline or 0, whether the process wants to hear of its end (1 or 0), whether it is bulk (1 or 0),
-- the digest of its content or '', whether it must be classified anew (1 or 0), …
-- Returns {jobs that wait, bytes of uploads, jobs ended per second or '', then for each job what
-- became of it, as in app.jobs.job.Reception}
local REFUSED, ACCEPTED, ANSWERED, JOINED = 0, 1, 2, 3

local now = now_ms()
local jobs, bytes = count_waiting(), tonumber(redis.call('GET', BACKLOG_BYTES) or 0)
local added_jobs, added_bytes = 0, 0
local counts = {}

local function accept(id, owner, size, patience, is_watched, is_bulk)
  enter(id, 'pending', 0, 0, now, 'owner', owner, 'created', now, 'size', size)
  if patience > 0 then
    redis.call('HSET', JOB .. id, 'deadline', now + patience)
    redis.call('ZADD', DEADLINES, now + patience, id)
  end
  if is_watched then
    redis.call('HSET', JOB .. id, 'watchers', ARGV[1] .. '!')
  end
  if is_bulk then
    redis.call('HSET', JOB .. id, 'bulk', 1)
  end
  if PAYLOADS_IN_REDIS then
    redis.call('PERSIST', PAYLOAD .. id)
  end
  jobs, bytes = jobs + 1, bytes + size
  added_jobs, added_bytes = added_jobs + 1, added_bytes + size
end

-- Queue a job, unless another of the same content saves the work.
local function place(id, is_bulk, content, is_fresh)
  local found = content ~= '' and not is_fresh and find_answered(content, now)
  if found then
    copy_answer(id, read_record(id), found, now)
    return ANSWERED
  end
  found = content ~= '' and not is_fresh and find_flight(content, is_bulk)
  if found then
    redis.call('RPUSH', FOLLOWERS .. found, id)
    return JOINED
  end
  if content ~= '' then
    redis.call('HSET', JOB .. id, 'content', content)
    redis.call('HSET', FLIGHTS, content, id)
  end
  redis.call('RPUSH', queue_of(is_bulk), id)
  return ACCEPTED
end

local reply = {0, 0, redis.call('HGET', DRAIN, 'rate') or ''}
for i = 2, #ARGV, 8 do
  local id, size, is_bulk = ARGV[i], tonumber(ARGV[i + 2]), ARGV[i + 5] == '1'
  local verdict = REFUSED
  local state = redis.call('HGET', JOB .. id, 'state')
  if state then
    verdict = state == 'completed' and ANSWERED or ACCEPTED
  elseif jobs < MAX_JOBS and bytes + size <= MAX_BYTES then
    accept(id, ARGV[i + 1], size, tonumber(ARGV[i + 3]), ARGV[i + 4] == '1', is_bulk)
    verdict = place(id, is_bulk, ARGV[i + 6], ARGV[i + 7] == '1')
    if ARGV[i + 6] ~= '' then
      counts[verdict] = (counts[verdict] or 0) + 1
    end
  end
  reply[#reply + 1] = verdict
end
if added_jobs > 0 then
  redis.call('INCRBY', BACKLOG_JOBS, added_jobs)
  redis.call('INCRBY', BACKLOG_BYTES, added_bytes)
end
for verdict, count in pairs(counts) do
  redis.call('HINCRBY', CACHE_COUNTS, verdict, count)
end
-- A repetition writes nothing: it must be answered even by a Redis that has become full since.
if added_jobs > 0 then
  ring_doorbells()
end
send_news()
reply[1], reply[2] = jobs, bytes
return reply
