-- Reporting what came of claims.

-- While jobs wait, the rate at which others leave tells a sender when to come again. It is measured
-- over this many ms and smoothed; a much longer window was an outage; and it soon says nothing more.
local WINDOW = 2000
local OUTAGE = 10000
local RATE_TTL = 60000

local function measure_drain(count)
  if count_queued() == 0 then
    redis.call('HDEL', DRAIN, 'since', 'count')
    return
  end
  local window = redis.call('HMGET', DRAIN, 'since', 'count', 'rate')
  local since = tonumber(window[1])
  if not since or now - since > OUTAGE then
    redis.call('HSET', DRAIN, 'since', stamp, 'count', '0')
    return
  end
  count = count + window[2]
  if now - since < WINDOW then
    redis.call('HSET', DRAIN, 'count', text(count))
    return
  end
  local rate = count * 1000 / (now - since)
  if window[3] then
    rate = (rate + window[3]) / 2
  end
  redis.call('HSET', DRAIN, 'since', stamp, 'count', '0', 'rate', rate)
  redis.call('PEXPIRE', DRAIN, RATE_TTL)
end

local function put_off(id, record, body, reason, delay)
  note_attempt(id, record, reason)
  if record.retries >= RETRY_LIMIT then
    bury(id, record, 'retries_exhausted', body)
    return
  end
  enter(id, record, 'pending', '0', 'retries', record.retries + 1)
  redis.call('ZADD', DELAYED, now + delay, id)
  if record.deadline then
    -- It may have passed while the job ran, and the sweeper forgets those.
    redis.call('ZADD', DEADLINES, record.deadline, id)
  end
end

-- Report outcomes: `words` from `first` on are id, attempt, verdict, body, reason, delay ms, …
-- A claim that is no longer current changes nothing: whoever holds the job now will end it.
--   completed      body: the predictions
--   failed         body: the error; the sender's fault, and nothing to keep
--   unprocessable  body: the error; becomes a dead letter
--   cancelled      the worker has heard that the job is not wanted any more
--   retry          reason: why not now; after the delay again; body: the error once that has been
--                  so too often
-- Returns the ids of the jobs that have ended under this claim, now or, when the answer was lost and
-- the call is repeated, before; and of those whose record has expired: their uploads can go
local function finish_claims(words, first)
  local ended, left = {}, 0
  for i = first, #words, 6 do
    local id, attempt, verdict, body = words[i], words[i + 1], words[i + 2], words[i + 3]
    local record = read_record(id)
    if record.state == 'processing' and record.attempts == attempt then
      drop_claim(id, record)
      left = left + 1
      if verdict == 'completed' then
        finish(id, record, 'completed', '100', 'result', body)
        ended[#ended + 1] = id
      elseif verdict == 'failed' then
        finish(id, record, 'failed', record.progress, 'error', body)
        ended[#ended + 1] = id
      elseif verdict == 'unprocessable' then
        note_attempt(id, record, words[i + 4])
        bury(id, record, 'unprocessable', body)
      elseif verdict == 'cancelled' or record.cancel then
        cancel(id, record)
        ended[#ended + 1] = id
      else
        put_off(id, record, body, words[i + 4], words[i + 5])
      end
    elseif not record.state
      or (record.attempts == attempt and record.state ~= 'pending' and not record.dead) then
      ended[#ended + 1] = id
    end
  end
  if left > 0 then
    measure_drain(left)
  end
  return ended
end
