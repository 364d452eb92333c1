-- Put claims of a worker process under another name of its own, so that it can claim others
-- meanwhile: under the first it would be given these again.
-- ARGV: holder, its other name, id, id, …
go_beyond_memory_limit()
local holder, other = ARGV[1], ARGV[2]
for i = 3, #ARGV do
  local id = ARGV[i]
  -- Some may belong to somebody else by now, or to nobody.
  if redis.call('SREM', HOLDER .. holder, id) == 1 and read_record(id).state == 'processing' then
    redis.call('SADD', HOLDER .. other, id)
    redis.call('HSET', JOB .. id, 'holder', other)
  end
end
