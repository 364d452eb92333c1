-- Jobs of the same content: the same image, options and owner, told by a digest.

-- The answer is found again by content and model: in the record of the job that was given it, as long
-- as that is kept. CACHE_USE says when each was used last; the one that was not used longest goes.
local function remember_answer(id, content)
  local identity = redis.call('HGET', JOB .. id, 'identity')
  if not identity or identity == '' or CACHE_ENTRIES == 0 then
    return
  end
  local key = CACHE .. identity .. ':' .. content
  redis.call('SET', key, id, 'PX', CACHE_TTL)
  redis.call('ZADD', CACHE_USE, now, key)
  local excess = redis.call('ZCARD', CACHE_USE) - CACHE_ENTRIES
  if excess > 0 then
    local oldest = redis.call('ZPOPMIN', CACHE_USE, excess)
    for i = 1, #oldest, 2 do
      redis.call('UNLINK', oldest[i])
    end
  end
end

-- The job whose answer is also that of `content`, by the model that the workers run now.
local function find_answered(content)
  local identity = redis.call('GET', MODEL)
  if not identity then
    return nil
  end
  local key = CACHE .. identity .. ':' .. content
  local id = redis.call('GET', key)
  if not id or redis.call('HEXISTS', JOB .. id, 'result') == 0 then
    return nil
  end
  redis.call('ZADD', CACHE_USE, 'XX', now, key)
  return id
end

-- All of them end in one script, which holds Redis up.
local MOST_FOLLOWERS = 250

-- The unfinished job that will answer for `content`. None for an interactive job while that is bulk,
-- and none that is waiting for another try.
local function find_flight(content, is_bulk)
  local id = redis.call('HGET', FLIGHTS, content)
  local leader = id and redis.call('HMGET', JOB .. id, 'state', 'bulk', 'retries')
  if not leader or (leader[1] ~= 'pending' and leader[1] ~= 'processing') then
    return nil
  end
  if (leader[2] and not is_bulk) or leader[3] then
    return nil
  end
  if redis.call('LLEN', FOLLOWERS .. id) >= MOST_FOLLOWERS then
    return nil
  end
  return id
end
