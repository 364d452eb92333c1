-- What came of attempts. One that is no longer current changes nothing: its lease ran out, and
-- whoever has the delivery now will report.
-- ARGV: delivery, webhook, attempt, verdict, note as JSON, ms until the next attempt, ms for which
-- the webhook wants nothing, …
--   delivered   the receiver has it
--   retry       the next attempt is due after the delay
--   failed      it was the last attempt
--   gone        the receiver wants nothing any more: the webhook is disabled

-- Replays add attempts without end.
local MOST_NOTES = 40

go_beyond_memory_limit()
local now = now_ms()

local function note_attempt(id, trail, note)
  trail = trail and cjson.decode(trail) or {}
  trail[#trail + 1] = cjson.decode(note)
  if #trail > MOST_NOTES then
    table.remove(trail, 1)
  end
  redis.call('HSET', DELIVERY .. id, 'trail', cjson.encode(trail))
  redis.call('HINCRBY', DELIVERY .. id, 'tries', 1)
  redis.call('HDEL', DELIVERY .. id, 'sending')
end

-- A receiver that is down fails at once, each time: without pauses the attempts at one such would
-- keep a core busy. Whoever fails now and then is not held up; the longest pause is how late the
-- end of an outage may be noticed.
local FEW_FAILURES, FIRST_PAUSE, LONGEST_PAUSE = 5, 100, 5000

local function find_pause(failures)
  if failures < FEW_FAILURES then
    return 0
  end
  return math.min(FIRST_PAUSE * 2 ^ (failures - FEW_FAILURES), LONGEST_PAUSE)
end

-- What the webhook's next deliveries have to know of this one.
local function mark_webhook(webhook, verdict, silence)
  local key = WEBHOOK .. webhook
  if redis.call('EXISTS', key) == 0 then
    return
  end
  if verdict == 'delivered' then
    redis.call('HDEL', key, 'failing')
    return
  end
  local pause = math.max(silence, find_pause(redis.call('HINCRBY', key, 'failing', 1)))
  local paused = tonumber(redis.call('HGET', key, 'paused') or 0)
  redis.call('HSET', key, 'paused', math.max(paused, now + pause))
  if verdict == 'gone' then
    redis.call('HSET', key, 'enabled', 0)
  end
end

-- Whether somebody wanted it sent again meanwhile, and the webhook still takes something.
local function is_wanted_again(id, webhook, again)
  redis.call('HDEL', DELIVERY .. id, 'again')
  return again and redis.call('HGET', WEBHOOK .. webhook, 'enabled') == '1'
end

for i = 1, #ARGV, 7 do
  local id, webhook, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local delay, silence = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
  local record = redis.call('HMGET', DELIVERY .. id, 'state', 'attempts', 'trail', 'again')
  if record[1] == 'pending' and record[2] == ARGV[i + 2] then
    local is_news = verdict ~= 'delivered'
    note_attempt(id, record[3], ARGV[i + 4])
    mark_webhook(webhook, verdict, silence)
    if is_wanted_again(id, webhook, record[4]) then
      redis.call('ZADD', WEBHOOK_DUE .. webhook, now, id)
      redis.call('HSET', DELIVERY .. id, 'due', now, 'tries', 0)
      is_news = true
    elseif verdict == 'retry' then
      redis.call('ZADD', WEBHOOK_DUE .. webhook, now + delay, id)
      redis.call('HSET', DELIVERY .. id, 'due', now + delay)
    elseif verdict == 'delivered' then
      settle(id, webhook, 'delivered', now)
    else
      settle(id, webhook, 'failed', now, 'reason',
        verdict == 'gone' and 'webhook-disabled' or 'attempts-exhausted')
    end
    reschedule(webhook)
    if is_news then
      -- Something is due at a time that no sender knew of; the one that reports may not live to see it.
      ring()
    end
  end
end
