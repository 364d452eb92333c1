-- Stands before every script. In place of names in capitals Redis gets the keys' names from
-- app/core/keys.py and the rules from app/webhooks/script.py.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What ends deliveries must work while Redis is at its memory limit. Redis then refuses a script
-- whose first write may need memory, and only that: this write needs none.
local function go_beyond_memory_limit()
  redis.call('ZREM', WEBHOOKS_DUE, '')
end

-- Say to every sender that there is work.
local function ring()
  redis.call('PUBLISH', WEBHOOK_BELL, '')
end

-- When a sender next has to look at a webhook: at once if that takes nothing any more and something
-- is left to be cleared out. Returns when that is, nothing if nothing waits.
local function reschedule(webhook)
  local first = redis.call('ZRANGE', WEBHOOK_DUE .. webhook, 0, 0, 'WITHSCORES')[2]
  local record = redis.call('HMGET', WEBHOOK .. webhook, 'enabled', 'paused')
  local is_left = first or (not record[1] and redis.call('EXISTS', WEBHOOK_LOG .. webhook) == 1)
  if not is_left then
    redis.call('ZREM', WEBHOOKS_DUE, webhook)
    return nil
  end
  local due = record[1] == '1' and math.max(first, record[2] or 0) or 0
  redis.call('ZADD', WEBHOOKS_DUE, due, webhook)
  return due
end

-- The end of a delivery. What the log no longer shows is not kept.
local function settle(id, webhook, state, now, ...)
  redis.call('ZREM', WEBHOOK_DUE .. webhook, id)
  if redis.call('ZSCORE', WEBHOOK_LOG .. webhook, id) then
    redis.call('HDEL', DELIVERY .. id, 'due', 'sending', 'again')
    redis.call('HSET', DELIVERY .. id, 'state', state, 'ended', now, ...)
    redis.call('PEXPIRE', DELIVERY .. id, LOG_TTL)
  else
    redis.call('UNLINK', DELIVERY .. id)
  end
end
