-- Erase dead letters.
-- ARGV: ids
-- Returns the ids that were dead letters: their uploads can go
local purged = {}
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', DEAD, id) == 1 then
    redis.call('UNLINK', JOB .. id)
    if PAYLOADS_IN_REDIS then
      redis.call('UNLINK', PAYLOAD .. id)
    end
    purged[#purged + 1] = id
  end
end
return purged
