-- Reserve an idempotency key for the job whose upload begins, or go on doing so.
-- ARGV: the key's name, job id, ms until the reservation ends unless it is renewed
-- Returns nothing when the key is the job's, else what it is bound to: the id of another job and, once
-- that is accepted, the fingerprint of what was sent
local name, id, ttl = IDEMPOTENCY .. ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', name)
if holder and holder ~= id then
  return holder
end
redis.call('SET', name, id, 'PX', ttl)
return nil
