-- Giving jobs to a worker process.

-- Ids of ended jobs are dropped on the way; so many at most in one go, for Redis runs nothing else
-- meanwhile. If more follow, the doorbell rule rings again.
local MAX_DROPPED = 1000

-- Interactive jobs go before bulk jobs, and never into a batch with them, which would keep their
-- results until the bulk is done. But of so many batches in a row one is bulk, so that it goes on.
local BULK_TURN = 8

-- The queues in the order in which they are asked.
local function order_queues()
  if redis.call('EXISTS', QUEUE, BULK_QUEUE) == 2 and redis.call('INCR', BULK_PASSED) >= BULK_TURN then
    redis.call('DEL', BULK_PASSED)
    return {BULK_QUEUE, QUEUE}
  end
  return {QUEUE, BULK_QUEUE}
end

-- Up to a batch of jobs for `holder`, and no more than it wants.
-- Returns {id, attempt, ms until its deadline or -1, retries, options or '', '1' if it runs alone or
-- '', …}, {ids of jobs that were too late …}
local function claim_jobs(holder, wanted, model, version, engine, identity)
  local given, late, count, dropped = {}, {}, 0, 0
  local most, lease_end = math.min(BATCH_SIZE, tonumber(wanted)), text(now + LEASE)

  local function give(id, record)
    redis.call('ZADD', LEASES, lease_end, id)
    given[#given + 1] = id
    given[#given + 1] = record.attempts
    given[#given + 1] = record.deadline and math.max(record.deadline - now, 0) or -1
    given[#given + 1] = record.retries
    given[#given + 1] = record.options or ''
    given[#given + 1] = record.solo or ''
    count = count + 1
  end

  -- What this process already holds comes first: its last claim's answer was lost on the way.
  for _, id in ipairs(redis.call('SMEMBERS', HOLDER .. holder)) do
    local record = read_record(id)
    if record.state == 'processing' then
      give(id, record)
    else
      redis.call('SREM', HOLDER .. holder, id)
    end
  end

  local function take_from(queue)
    while count < most and dropped < MAX_DROPPED do
      local id = redis.call('LPOP', queue)
      if not id then
        return
      end
      local record = read_record(id)
      if record.state ~= 'pending' then
        dropped = dropped + 1
      elseif record.deadline and record.deadline <= now then
        finish(id, record, 'failed', '0', 'error', DEADLINE_EXCEEDED)
        late[#late + 1] = id
        dropped = dropped + 1
      elseif record.solo and count > 0 then
        redis.call('LPUSH', queue, id)
        return
      else
        record.attempts = text(record.attempts + 1)
        enter(id, record, 'processing', '0', 'attempts', record.attempts, 'claimed', stamp,
          'holder', holder, 'model', model, 'version', version, 'engine', engine,
          'identity', identity)
        redis.call('SADD', HOLDER .. holder, id)
        give(id, record)
        if record.solo then
          return
        end
      end
    end
  end

  if count == 0 then
    for _, queue in ipairs(order_queues()) do
      if count == 0 then
        take_from(queue)
      end
    end
  end
  return given, late
end
