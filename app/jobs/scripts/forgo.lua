-- Give up the reservation of an idempotency key; one that is bound to an accepted job stays.
-- ARGV: the key's name, job id
if redis.call('GET', IDEMPOTENCY .. ARGV[1]) == ARGV[2] then
  redis.call('DEL', IDEMPOTENCY .. ARGV[1])
end
