-- Reserve an idempotency key for the job or the batch whose upload begins, or go on doing so.
-- ARGV: the key's name, its id, ms until the reservation ends unless it is renewed
-- Returns nothing when the key is its own, else what it is bound to: the id of another job or batch
-- and, once that is accepted, the fingerprint of what was sent
local name, id, ttl = IDEMPOTENCY .. ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', name)
if holder and holder ~= id then
  return holder
end
redis.call('SET', name, id, 'PX', ttl)
return nil
