-- Mend what nobody answered for: leases that ran out, deadlines that passed, doorbells that got
-- lost. Call back what waited for a retry; let go of dead letters that are too old.
-- Returns {leases that ran out, ids of jobs that have ended: their uploads can go …}, or nothing
-- when another worker sweeps
go_beyond_memory_limit()
if not redis.call('SET', SWEEPER, 1, 'NX', 'PX', SWEEP_LOCK) then
  return nil
end

-- Each costs a few commands; Redis runs nothing else meanwhile, and the rest can wait for the next
-- sweep.
local MAX_SWEPT = 1000

local function due(key, until_ms)
  return redis.call('ZRANGEBYSCORE', key, '-inf', until_ms, 'LIMIT', 0, MAX_SWEPT)
end

local lost = due(LEASES, now)
local reply = {#lost}
for _, id in ipairs(lost) do
  if take_back(id, 'worker_lost') then
    reply[#reply + 1] = id
  end
end

for _, id in ipairs(due(DELAYED, now)) do
  redis.call('ZREM', DELAYED, id)
  redis.call('LPUSH', queue_of(redis.call('HGET', JOB .. id, 'bulk')), id)
end

for _, id in ipairs(due(DEADLINES, now)) do
  local record = read_record(id)
  if record.state == 'pending' then
    redis.call('ZREM', DELAYED, id)
    finish(id, record, 'failed', '0', 'error', DEADLINE_EXCEEDED)
    reply[#reply + 1] = id
  else
    -- What runs may end; if it is taken back, that looks at the deadline again.
    redis.call('ZREM', DEADLINES, id)
  end
end

for _, id in ipairs(due(DEAD, now - DEAD_LETTER_TTL)) do
  redis.call('ZREM', DEAD, id)
  reply[#reply + 1] = id
end

write_backlog()
-- The counts go astray only when somebody deletes records by hand; an idle ledger knows.
if redis.call('EXISTS', QUEUE, BULK_QUEUE, LEASES, DELAYED) == 0 then
  redis.call('DEL', BACKLOG_JOBS, BACKLOG_BYTES)
end

-- Answers that nobody has asked for since they expired.
redis.call('ZREMRANGEBYSCORE', CACHE_USE, '-inf', now - CACHE_TTL)

-- Records that have expired leave their owners' lists. Whoever accepts more than this sweeps more.
local MAX_LISTED = 5000
local MAX_OWNERS = 10

local looked = 0
for _, owner in ipairs(redis.call('ZRANGE', OWNERS, 0, MAX_OWNERS - 1)) do
  if looked < MAX_LISTED then
    looked = looked + sweep_list(owner, MAX_LISTED - looked)
    if redis.call('EXISTS', JOBS .. owner) == 0 then
      redis.call('ZREM', OWNERS, owner)
    else
      redis.call('ZADD', OWNERS, now, owner)
    end
  end
end

-- Bells that got lost are missing from the list.
conclude()
for _, id in ipairs(freed) do
  reply[#reply + 1] = id
end
return reply
