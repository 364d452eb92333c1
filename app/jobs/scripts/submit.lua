-- Accept jobs: each once, however often it is sent, while there is room.
-- ARGV: the sending process's channel, then for each job id, owner, upload's bytes, ms until its
-- deadline or 0, whether the process wants to hear of its end (1 or 0), whether it is bulk (1 or 0), …
-- Returns {jobs that wait, bytes of uploads, jobs ended per second or '', then 1 or 0 for each job:
-- whether it is accepted}
local now = now_ms()
local jobs, bytes = count_waiting(), tonumber(redis.call('GET', BACKLOG_BYTES) or 0)
local added_jobs, added_bytes = 0, 0
local reply = {0, 0, redis.call('HGET', DRAIN, 'rate') or ''}
for i = 2, #ARGV, 6 do
  local id, owner, size = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local patience, is_watched = tonumber(ARGV[i + 3]), ARGV[i + 4] == '1'
  local is_bulk = ARGV[i + 5] == '1'
  local known = redis.call('EXISTS', JOB .. id) == 1
  local room = jobs < MAX_JOBS and bytes + size <= MAX_BYTES
  if room and not known then
    enter(id, 'pending', 0, 0, now, 'owner', owner, 'created', now, 'size', size)
    if patience > 0 then
      redis.call('HSET', JOB .. id, 'deadline', now + patience)
      redis.call('ZADD', DEADLINES, now + patience, id)
    end
    if is_watched then
      redis.call('HSET', JOB .. id, 'watchers', ARGV[1] .. '!')
    end
    if PAYLOADS_IN_REDIS then
      redis.call('PERSIST', PAYLOAD .. id)
    end
    if is_bulk then
      redis.call('HSET', JOB .. id, 'bulk', 1)
    end
    redis.call('RPUSH', queue_of(is_bulk), id)
    jobs, bytes = jobs + 1, bytes + size
    added_jobs, added_bytes = added_jobs + 1, added_bytes + size
  end
  reply[#reply + 1] = (room or known) and 1 or 0
end
if added_jobs > 0 then
  redis.call('INCRBY', BACKLOG_JOBS, added_jobs)
  redis.call('INCRBY', BACKLOG_BYTES, added_bytes)
end
ring_doorbells()
reply[1], reply[2] = jobs, bytes
return reply
