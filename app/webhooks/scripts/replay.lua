-- Send a delivery again at once, with all its retries. One that is being sent is due again when the
-- sender reports on that.
-- ARGV: delivery's id, owner
-- Returns 1, 0 when there is no such delivery, -1 when its webhook takes none
local key = DELIVERY .. ARGV[1]
local record = redis.call('HMGET', key, 'owner', 'webhook', 'state', 'sending')
local webhook = record[2]
if record[1] ~= ARGV[2] then
  return 0
end
if redis.call('HGET', WEBHOOK .. webhook, 'enabled') ~= '1' then
  return -1
end
-- Whoever asks knows that the receiver is well.
redis.call('HDEL', WEBHOOK .. webhook, 'paused')
redis.call('HSET', key, 'tries', 0)
if record[4] then
  redis.call('HSET', key, 'again', 1)
  reschedule(webhook)
  ring()
  return 1
end
local now = now_ms()
if record[3] ~= 'pending' then
  redis.call('PERSIST', key)
  redis.call('HDEL', key, 'ended', 'reason')
  redis.call('HSET', key, 'state', 'pending')
end
redis.call('HSET', key, 'due', now)
redis.call('ZADD', WEBHOOK_DUE .. webhook, now, ARGV[1])
reschedule(webhook)
ring()
return 1
