-- Erase a job at its owner's wish, whatever its state; one that has not ended is cancelled first, and
-- whoever holds it will find its claim gone. A mark stays for as long as its result might have.
-- ARGV: id, owner, a token that tells this request from others
-- Returns what became of it, as in app.jobs.withdrawals.Withdrawal. The repetition of a request whose
-- answer was lost is answered the same.
local id, owner, token = ARGV[1], ARGV[2], ARGV[3]
go_beyond_memory_limit()

local eraser = find_eraser(id, owner)
if eraser then
  return eraser == token and DONE or GONE
end
local record = read_record(id)
if not record.state or redis.call('HGET', JOB .. id, 'owner') ~= owner then
  return UNKNOWN
end
erase_job(id, record, token .. ' ' .. owner)
conclude()
return DONE
