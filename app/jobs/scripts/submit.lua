-- Accept jobs: each once, however often it is sent, while there is room.
-- ARGV: the sending process's channel, then for each job id, owner, upload's bytes, ms until its
-- deadline or 0, whether the process wants to hear of its end (1 or 0), whether it is bulk (1 or 0),
-- the digest of its content or '', whether it must be classified anew (1 or 0), …
-- Returns {jobs that wait, bytes of uploads, jobs ended per second or '', then for each job what
-- became of it, as in app.jobs.job.Reception}
local REFUSED, ACCEPTED, ANSWERED, JOINED = 0, 1, 2, 3

local now = now_ms()
local jobs, bytes = count_waiting(), tonumber(redis.call('GET', BACKLOG_BYTES) or 0)
local accepted, counts = 0, {}

local function write(id, record, owner)
  local optional = {}
  for _, field in ipairs({'deadline', 'watchers', 'bulk', 'content'}) do
    if record[field] then
      optional[#optional + 1] = field
      optional[#optional + 1] = record[field]
    end
  end
  enter(id, record, 'pending', 0, now, 'owner', owner, 'created', now, 'size', record.size,
    unpack(optional))
  if record.deadline then
    redis.call('ZADD', DEADLINES, record.deadline, id)
  end
  if PAYLOADS_IN_REDIS then
    redis.call('PERSIST', PAYLOAD .. id)
  end
  change_backlog(1, record.size)
  jobs, bytes, accepted = jobs + 1, bytes + record.size, accepted + 1
end

-- Queue a job, unless another of the same content saves the work.
local function accept(id, owner, record, content, is_fresh)
  local answered = content and not is_fresh and find_answered(content, now)
  local flight = content and not is_fresh and not answered and find_flight(content, record.bulk)
  if answered then
    write(id, record, owner)
    copy_answer(id, record, answered, now)
    return ANSWERED
  elseif flight then
    write(id, record, owner)
    redis.call('RPUSH', FOLLOWERS .. flight, id)
    return JOINED
  end
  record.content = content
  write(id, record, owner)
  if content then
    redis.call('HSET', FLIGHTS, content, id)
  end
  redis.call('RPUSH', queue_of(record.bulk), id)
  return ACCEPTED
end

local reply = {0, 0, redis.call('HGET', DRAIN, 'rate') or ''}
for i = 2, #ARGV, 8 do
  local id, size, patience = ARGV[i], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local content = ARGV[i + 6] ~= '' and ARGV[i + 6]
  local verdict = REFUSED
  local state = redis.call('HGET', JOB .. id, 'state')
  if state then
    verdict = state == 'completed' and ANSWERED or ACCEPTED
  elseif jobs < MAX_JOBS and bytes + size <= MAX_BYTES then
    local record = {
      owner = ARGV[i + 1], attempts = 0, progress = 0, size = size,
      deadline = patience > 0 and now + patience,
      watchers = ARGV[i + 4] == '1' and ARGV[1] .. '!', bulk = ARGV[i + 5] == '1' and '1',
    }
    verdict = accept(id, ARGV[i + 1], record, content, ARGV[i + 7] == '1')
    if content then
      counts[verdict] = (counts[verdict] or 0) + 1
    end
  end
  reply[#reply + 1] = verdict
end
for verdict, count in pairs(counts) do
  redis.call('HINCRBY', CACHE_COUNTS, verdict, count)
end
-- A repetition writes nothing: it must be answered even by a Redis that has become full since.
if accepted > 0 then
  conclude()
end
reply[1], reply[2] = jobs, bytes
return reply
