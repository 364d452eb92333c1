-- Mend what nobody answered for: leases that ran out, doorbells that got lost.
-- ARGV: lock ms, batch size, max attempts, error body when exhausted, result ttl s, history length
-- Returns {leases that ran out, ids of jobs that failed …}, or nothing when another worker sweeps
if not redis.call('SET', SWEEPER, 1, 'NX', 'PX', ARGV[1]) then
  return nil
end

-- Recovering is a few commands a job; Redis runs nothing else meanwhile, and the rest can wait
-- for the next sweep.
local MAX_RECOVERED = 1000

local batch = tonumber(ARGV[2])
local now = now_ms()
local late = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, MAX_RECOVERED)
local reply = {#late}
for _, id in ipairs(late) do
  if recover(id, now, tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])) then
    reply[#reply + 1] = id
  end
end

-- A bell that a worker has popped but not yet answered counts as lost here. One bell too many
-- finds nothing and does nothing.
ring_doorbells(redis.call('LLEN', DOORBELLS), batch)
return reply
