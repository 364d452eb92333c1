-- Register a webhook, once however often it is sent.
-- ARGV: id, owner, URL, event types, secret
-- Returns when it was made, or nothing when the owner has too many
local id, owner = ARGV[1], ARGV[2]
local made = redis.call('HGET', WEBHOOK .. id, 'created')
if made then
  return tonumber(made)
end
if redis.call('ZCARD', OWNER_WEBHOOKS .. owner) >= MAX_ENDPOINTS then
  return nil
end
local now = now_ms()
if redis.call('ZCARD', WEBHOOKS) == 0 then
  -- Nobody has read the history so far, and nobody wants what happened until now.
  local last = redis.call('XREVRANGE', HISTORY, '+', '-', 'COUNT', 1)[1]
  redis.call('SET', WEBHOOK_CURSOR, last and last[1] or '0-0')
end
redis.call('HSET', WEBHOOK .. id, 'owner', owner, 'url', ARGV[3], 'events', ARGV[4],
  'secret', ARGV[5], 'created', now, 'enabled', 1)
redis.call('ZADD', WEBHOOKS, now, id)
redis.call('ZADD', OWNER_WEBHOOKS .. owner, now, id)
ring()
return now
