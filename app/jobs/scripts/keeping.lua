-- Records that are kept: each owner's list of them, and when room is there again.

-- Take up to `most` expired records out of an owner's list. Younger ones than RESULT_TTL can't be among
-- them. Where many are older, some at a random place are looked at: those at the front may all be jobs
-- that are kept for long. A look at one costs a microsecond.
-- Returns how many were looked at.
local function sweep_list(owner, most)
  local list, oldest = JOBS .. owner, (now - RESULT_TTL) * 1000
  local count = redis.call('ZCOUNT', list, '-inf', oldest)
  if count == 0 then
    return 0
  end
  math.randomseed(now)
  local first = count > most and math.random(0, count - most) or 0
  local ids = redis.call('ZRANGE', list, first, first + math.min(count, most) - 1)
  for _, id in ipairs(ids) do
    if redis.call('EXISTS', JOB .. id) == 0 then
      redis.call('ZREM', list, id)
    end
  end
  return #ids
end

-- Records expire about in the order in which they came. Those that wait, or whose batch does, have no
-- end yet.
local MOST_OLDEST = 20

-- Returns the ms until the first of an owner's oldest records expires, nothing if none will yet.
local function find_relief(owner)
  local relief
  for _, id in ipairs(redis.call('ZRANGE', JOBS .. owner, 0, MOST_OLDEST - 1)) do
    local left = redis.call('PTTL', JOB .. id)
    if left ~= -1 then
      relief = math.min(relief or RESULT_TTL, math.max(left, 0))
    end
  end
  return relief
end
