-- Claims have come to nothing: worker_lost (the process is gone), timed_out (it was stopped), or
-- handed_back (it stops in good health, and the job has lost nothing).
-- ARGV: holder, reason, then the ids to give back; none: all that it holds
-- Returns the ids of the jobs that have ended: their uploads can go
local holder, reason = ARGV[1], ARGV[2]
go_beyond_memory_limit()
local ended = {}
local ids = {unpack(ARGV, 3)}
if #ids == 0 then
  ids = redis.call('SMEMBERS', HOLDER .. holder)
end
for _, id in ipairs(ids) do
  -- Some may belong to somebody else by now.
  if redis.call('SREM', HOLDER .. holder, id) == 1 and take_back(id, reason) then
    ended[#ended + 1] = id
  end
end
conclude()
for _, id in ipairs(freed) do
  ended[#ended + 1] = id
end
return ended
