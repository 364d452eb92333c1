-- Cancel what is left of a batch at its owner's wish.
-- ARGV: batch id, owner, a token that tells this request from others
-- Returns {what became of it, as in app.jobs.withdrawals.Withdrawal, ids of jobs that have ended:
-- their uploads can go …}. The repetition of a request whose answer was lost is answered the same.
local batch, owner, token = ARGV[1], ARGV[2], ARGV[3]
go_beyond_memory_limit()

if find_eraser(batch, owner) then
  return {GONE}
end
local fields = redis.call('HMGET', BATCH .. batch, 'owner', 'pending', 'processing', 'cancel')
if fields[1] ~= owner then
  return {UNKNOWN}
elseif fields[4] ~= token and (fields[2] or 0) + (fields[3] or 0) == 0 then
  return {ENDED}
end

redis.call('HSETNX', BATCH .. batch, 'cancel', token)
local verdict, ended = DONE, {}
for _, id in ipairs(redis.call('LRANGE', BATCH_JOBS .. batch, 0, -1)) do
  local became = cancel_job(id, read_record(id), token)
  if became == ASKED then
    verdict = ASKED
  elseif became == DONE then
    ended[#ended + 1] = id
  end
end
conclude()
return {verdict, unpack(ended)}
