-- A worker lives.
-- ARGV: its name, what it says of itself, ms until it counts as gone, the identity of its model
-- Returns how many others have fallen silent
go_beyond_memory_limit()
redis.call('SET', WORKER .. ARGV[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', MODEL, ARGV[4])
redis.call('ZADD', WORKERS, now + ARGV[3], ARGV[1])
return redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now)
