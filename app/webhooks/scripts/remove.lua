-- Delete a webhook. What waits for it and its log are cleared out by a sender.
-- ARGV: id, owner
-- Returns whether there was one, as 1 or 0
local id, owner = ARGV[1], ARGV[2]
go_beyond_memory_limit()
if redis.call('HGET', WEBHOOK .. id, 'owner') ~= owner then
  return 0
end
redis.call('UNLINK', WEBHOOK .. id)
redis.call('ZREM', WEBHOOKS, id)
redis.call('ZREM', OWNER_WEBHOOKS .. owner, id)
reschedule(id)
ring()
return 1
