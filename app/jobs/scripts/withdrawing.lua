-- What its owner no longer wants: one job, or all of a batch.
local UNKNOWN, GONE, ENDED, DONE, ASKED = 0, 1, 2, 3, 4

-- At once if it waits; if a worker has it, that is told with its next report. `token` tells the
-- request from others.
local function cancel_job(id, record, token)
  if record.state == 'pending' then
    redis.call('HSET', JOB .. id, 'cancel', token)
    redis.call('ZREM', DELAYED, id)
    cancel(id, record)
    return DONE
  elseif record.state == 'processing' then
    redis.call('HSETNX', JOB .. id, 'cancel', token)
    return ASKED
  end
  return record.state == 'cancelled' and record.cancel == token and DONE or ENDED
end

-- The copy of an answer goes with the last job that shares it. Those that have expired meanwhile are
-- not counted out: then it stays, out of reach, until its own time is up.
local function leave_answer(id, record)
  local source = redis.call('HGET', JOB .. id, 'answer')
  if not source then
    return
  end
  local shelf = ANSWERS .. (record.batch or source)
  if redis.call('HINCRBY', shelf, source .. ' uses', -1) <= 0 then
    redis.call('HDEL', shelf, source, source .. ' uses')
  end
end

-- Whatever its state; one that has not ended is cancelled first, and whoever holds it will find its
-- claim gone. A mark stays for as long as its result might have. Those who watch hear that it is
-- erased, and nothing before.
local function erase_job(id, record, mark)
  local watchers = record.watchers
  record.watchers = nil
  if record.state == 'pending' or record.state == 'processing' then
    drop_claim(id, record)
    redis.call('ZREM', DELAYED, id)
    cancel(id, record)
  end
  redis.call('ZREM', DEAD, id)
  leave_answer(id, record)
  redis.call('UNLINK', JOB .. id)
  if PAYLOADS_IN_REDIS then
    redis.call('UNLINK', PAYLOAD .. id)
  end
  redis.call('SET', ERASED .. id, mark, 'PX', RESULT_TTL)
  tell_watchers(id, watchers, true)
end
