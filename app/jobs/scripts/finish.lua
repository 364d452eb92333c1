-- End claimed jobs, each in the one terminal state that its worker found. A claim that is no
-- longer current changes nothing: whoever holds the job now will end it.
-- ARGV: result ttl s, history length, then id, attempt, state, body, …
-- Returns the ids of the jobs that have ended under this claim, now or, when the answer was lost and
-- the call is repeated, before; and of those whose record has expired: their uploads can go
local ttl, length = ARGV[1], tonumber(ARGV[2])
local now, ended = now_ms(), {}
for i = 3, #ARGV, 4 do
  local id, attempt, state, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local record = redis.call('HMGET', JOB .. id, 'state', 'attempts', 'holder', 'progress')
  if record[1] == 'processing' and record[2] == attempt then
    drop_claim(id, record[3])
    if state == 'completed' then
      finish(id, state, 100, 'result', body, now, ttl, length)
    else
      finish(id, state, tonumber(record[4]), 'error', body, now, ttl, length)
    end
    ended[#ended + 1] = id
  elseif not record[1] or (record[2] == attempt and record[1] ~= 'pending') then
    ended[#ended + 1] = id
  end
end
return ended
