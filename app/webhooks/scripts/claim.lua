-- Give a sender deliveries whose time has come. Each is due again when its lease runs out, unless
-- the sender reports by then what came of it.
-- ARGV: how many in all, how many of one webhook; then webhook and how many of its the sender is
-- sending already, …
-- Returns {ms until something is due or -1, 1 if more is due than the sender may take, {delivery,
-- webhook, attempt, attempts since the last replay, URL, secret, former secrets, event type, its
-- time, job or batch, a batch's counts as JSON or '', …}}
go_beyond_memory_limit()
local now = now_ms()
local free, most_of_one = tonumber(ARGV[1]), tonumber(ARGV[2])
local busy = {}
for i = 3, #ARGV, 2 do
  busy[ARGV[i]] = tonumber(ARGV[i + 1])
end

-- Redis runs nothing else meanwhile; the rest is cleared out by the next claim.
local MOST_CLEARED = 500

local is_left = false

-- A webhook that is disabled gets no more, but whoever sends to it may still report what came of
-- that; of one that is deleted nothing stays.
local function clear_out(webhook, is_deleted)
  local due = redis.call('ZRANGE', WEBHOOK_DUE .. webhook, 0, MOST_CLEARED - 1, 'WITHSCORES')
  local first_lease
  for i = 1, #due, 2 do
    local id, score = due[i], tonumber(due[i + 1])
    if is_deleted then
      redis.call('ZREM', WEBHOOK_DUE .. webhook, id)
      redis.call('UNLINK', DELIVERY .. id)
    elseif score > now and redis.call('HEXISTS', DELIVERY .. id, 'sending') == 1 then
      first_lease = first_lease or score
    else
      settle(id, webhook, 'failed', now, 'reason', 'webhook-disabled')
    end
  end
  local logged = is_deleted and redis.call('ZPOPMIN', WEBHOOK_LOG .. webhook, MOST_CLEARED) or {}
  for i = 1, #logged, 2 do
    redis.call('UNLINK', DELIVERY .. logged[i])
  end
  if first_lease and #due < 2 * MOST_CLEARED then
    redis.call('ZADD', WEBHOOKS_DUE, first_lease, webhook)
    return
  end
  reschedule(webhook)
  is_left = is_left or redis.call('ZSCORE', WEBHOOKS_DUE, webhook)
end

local claims, is_limited = {}, false

local function give(id, webhook, about)
  local record = redis.call('HMGET', DELIVERY .. id, 'attempts', 'tries', 'type', 'time', 'job',
    'batch', 'counts')
  if not record[1] then
    redis.call('ZREM', WEBHOOK_DUE .. webhook, id)
    return
  end
  local attempt = record[1] + 1
  redis.call('HSET', DELIVERY .. id, 'attempts', attempt, 'sending', 1)
  redis.call('HDEL', DELIVERY .. id, 'again')
  redis.call('ZADD', WEBHOOK_DUE .. webhook, now + LEASE, id)
  for _, word in ipairs({id, webhook, attempt, record[2], about[1], about[2], about[3] or '',
    record[3], record[4], record[5] or record[6], record[7] or ''}) do
    claims[#claims + 1] = word
  end
  free = free - 1
end

for _, webhook in ipairs(redis.call('ZRANGEBYSCORE', WEBHOOKS_DUE, '-inf', now)) do
  local about = redis.call('HMGET', WEBHOOK .. webhook, 'url', 'secret', 'former', 'enabled',
    'failing')
  if about[4] ~= '1' then
    clear_out(webhook, not about[4])
  else
    -- One that failed last is tried with one delivery at a time until it takes one.
    local most = (about[5] and 1 or most_of_one) - (busy[webhook] or 0)
    most = math.max(math.min(most, free), 0)
    local due = redis.call('ZRANGEBYSCORE', WEBHOOK_DUE .. webhook, '-inf', now, 'LIMIT', 0, most)
    for _, id in ipairs(due) do
      give(id, webhook, about)
    end
    reschedule(webhook)
    is_limited = is_limited or tonumber(redis.call('ZSCORE', WEBHOOKS_DUE, webhook) or now + 1) <= now
  end
end

local pause = -1
if is_left then
  pause = 0
else
  local next_due = redis.call('ZRANGEBYSCORE', WEBHOOKS_DUE, '(' .. now, '+inf', 'WITHSCORES',
    'LIMIT', 0, 1)
  if next_due[2] then
    pause = next_due[2] - now
  end
end
return {pause, is_limited and 1 or 0, claims}
