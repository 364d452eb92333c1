-- Erase a batch at its owner's wish, with all of its jobs, whatever their states.
-- ARGV: batch id, owner, a token that tells this request from others
-- Returns {what became of it, as in app.jobs.withdrawals.Withdrawal, ids of its jobs: their uploads
-- can go …}. The repetition of a request whose answer was lost is answered the same.
local batch, owner, token = ARGV[1], ARGV[2], ARGV[3]
go_beyond_memory_limit()

local eraser = find_eraser(batch, owner)
if eraser then
  return {eraser == token and DONE or GONE}
elseif redis.call('HGET', BATCH .. batch, 'owner') ~= owner then
  return {UNKNOWN}
end

local mark = token .. ' ' .. owner
local watchers = redis.call('HGET', BATCH .. batch, 'watchers')
-- Those who watch hear that it is erased, and nothing before.
redis.call('HDEL', BATCH .. batch, 'watchers')
redis.call('HSETNX', BATCH .. batch, 'cancel', token)
local ids = redis.call('LRANGE', BATCH_JOBS .. batch, 0, -1)
for _, id in ipairs(ids) do
  erase_job(id, read_record(id), mark)
end
-- One that had not ended is cancelled by that.
write_batches()
redis.call('UNLINK', BATCH .. batch, BATCH_JOBS .. batch, BATCH_ENDED .. batch, ANSWERS .. batch)
redis.call('SET', ERASED .. batch, mark, 'PX', RESULT_TTL)
tell_watchers(batch, watchers, true, BATCH .. batch)
conclude()
return {DONE, unpack(ids)}
