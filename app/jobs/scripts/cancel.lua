-- Cancel a job at its owner's wish: at once if it waits; if a worker has it, that is told with its
-- next report, and its answer counts if it comes first.
-- ARGV: id, owner, a token that tells this request from others
-- Returns {what became of it, as in app.jobs.withdrawals.Withdrawal, its record}. The repetition of a
-- request whose answer was lost is answered the same.
local id, owner, token = ARGV[1], ARGV[2], ARGV[3]
go_beyond_memory_limit()

local function cancel_if_possible()
  if find_eraser(id, owner) then
    return GONE
  end
  local record = read_record(id)
  if not record.state or redis.call('HGET', JOB .. id, 'owner') ~= owner then
    return UNKNOWN
  end
  return cancel_job(id, record, token)
end

local verdict = cancel_if_possible()
conclude()
return {verdict, redis.call('HGETALL', JOB .. id)}
