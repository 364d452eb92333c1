-- Give up the reservation of an idempotency key; one that is bound to what was accepted stays.
-- ARGV: the key's name, the id of the job or the batch
if redis.call('GET', IDEMPOTENCY .. ARGV[1]) == ARGV[2] then
  redis.call('DEL', IDEMPOTENCY .. ARGV[1])
end
