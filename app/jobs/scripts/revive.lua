-- Put dead letters back into the queue, as an operator wishes: the one way out of a terminal state.
-- Their failures are forgotten, their deadlines too; each runs alone.
-- ARGV: ids
-- Returns the ids that were dead letters
local revived = {}
for _, id in ipairs(ARGV) do
  local record = redis.call('ZREM', DEAD, id) == 1 and read_record(id)
  if record and record.dead then
    redis.call('PERSIST', JOB .. id)
    redis.call('HDEL', JOB .. id, 'dead', 'error', 'finished', 'deadline', 'losses', 'retries',
      'cancel')
    enter(id, record, 'pending', '0', 'solo', 1)
    change_backlog(1, record.size or 0)
    if PAYLOADS_IN_REDIS then
      redis.call('PERSIST', PAYLOAD .. id)
    end
    redis.call('RPUSH', queue_of(record.bulk), id)
    revived[#revived + 1] = id
  end
end
conclude()
return revived
