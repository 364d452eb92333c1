-- Accepting jobs: what submitting one and submitting a batch have in common.
-- TAKEN: somebody else has the idempotency key. CROWDED: the owner keeps too many records.
local REFUSED, ACCEPTED, ANSWERED, JOINED, TAKEN, CROWDED = 0, 1, 2, 3, 4, 5

local jobs, bytes = count_waiting(), tonumber(redis.call('GET', BACKLOG_BYTES) or 0)
local accepted, counts = 0, {}

-- How many records each owner keeps, how many of them came with this script, and who may keep no more.
local kept, came, is_crowded = {}, {}, {}

-- Of those at the limit, so many are looked at whether they have expired.
local MOST_SWEPT = 100

-- Whether an owner may keep `count` more records. All count: those that wait, that have ended, that
-- were answered or refused at once.
local function may_keep(owner, count)
  kept[owner] = kept[owner] or redis.call('ZCARD', JOBS .. owner)
  if kept[owner] + count > MAX_RECORDS and not is_crowded[owner] then
    sweep_list(owner, MOST_SWEPT)
    kept[owner] = redis.call('ZCARD', JOBS .. owner)
    is_crowded[owner] = kept[owner] + count > MAX_RECORDS
  end
  return kept[owner] + count <= MAX_RECORDS
end

-- Each owner's jobs, by when they came and, within a millisecond, in the order of one script's: a score
-- of their own for nearly all, so that a page of the list begins where the last one ended.
local function list_job(id, owner)
  if kept[owner] == 0 then
    redis.call('ZADD', OWNERS, 0, owner)
  end
  kept[owner], came[owner] = kept[owner] + 1, (came[owner] or 0) + 1
  redis.call('ZADD', JOBS .. owner, stamp .. string.format('%03d', math.min(accepted, 999)), id)
end

-- For each record that comes two may go: lists shrink while they grow, however fast that is.
local function sweep_lists()
  for owner, count in pairs(came) do
    sweep_list(owner, 2 * count)
  end
end

local function write(id, record)
  local optional = {}
  for _, field in ipairs({'deadline', 'watchers', 'bulk', 'content', 'options', 'batch', 'name', 'label'}) do
    if record[field] then
      optional[#optional + 1] = field
      optional[#optional + 1] = record[field]
    end
  end
  enter(id, record, 'pending', '0', 'owner', record.owner, 'created', stamp, 'size', record.size,
    unpack(optional))
  if record.deadline then
    redis.call('ZADD', DEADLINES, record.deadline, id)
  end
  if PAYLOADS_IN_REDIS then
    redis.call('PERSIST', PAYLOAD .. id)
  end
  list_job(id, record.owner)
  change_backlog(1, record.size)
  jobs, bytes, accepted = jobs + 1, bytes + record.size, accepted + 1
end

-- Queue a job, unless another of the same content saves the work.
local function queue_or_share(id, record, content, is_fresh)
  local answered = content and not is_fresh and find_answered(content)
  local flight = content and not is_fresh and not answered and find_flight(content, record.bulk)
  if answered then
    write(id, record)
    share_answer(id, record, answered)
    return ANSWERED
  elseif flight then
    write(id, record)
    redis.call('RPUSH', FOLLOWERS .. flight, id)
    return JOINED
  end
  record.content = content
  write(id, record)
  if content then
    redis.call('HSET', FLIGHTS, content, id)
  end
  redis.call('RPUSH', queue_of(record.bulk), id)
  return ACCEPTED
end

local function accept(id, record, content, is_fresh)
  local verdict = queue_or_share(id, record, content, is_fresh)
  if content then
    counts[verdict] = (counts[verdict] or 0) + 1
  end
  return verdict
end

-- `name`: of an idempotency key, or ''; `id`: of the job or the batch that is sent under it.
local function is_taken(name, id)
  local holder = name ~= '' and redis.call('GET', IDEMPOTENCY .. name)
  return holder and holder ~= id
end

-- A sender may come again for a day. One who has bound MAX_KEYS in that time may come again as long as
-- the result is kept, so that keys can't fill the memory for longer than results do.
local HOUR = 3600 * 1000
local KEY_TTL = 24 * HOUR

-- How many keys each owner has bound for a day, by the hour; counts whose keys have expired are erased.
local function count_keys(owner)
  local hours, total = redis.call('HGETALL', IDEMPOTENCY_COUNTS .. owner), 0
  for i = 1, #hours, 2 do
    if tonumber(hours[i]) < math.floor((now - KEY_TTL) / HOUR) then
      redis.call('HDEL', IDEMPOTENCY_COUNTS .. owner, hours[i])
    else
      total = total + hours[i + 1]
    end
  end
  return total
end

local function choose_key_ttl(owner)
  if count_keys(owner) >= MAX_KEYS then
    return math.min(RESULT_TTL, KEY_TTL)
  end
  redis.call('HINCRBY', IDEMPOTENCY_COUNTS .. owner, math.floor(now / HOUR), 1)
  redis.call('PEXPIRE', IDEMPOTENCY_COUNTS .. owner, KEY_TTL + HOUR)
  return KEY_TTL
end

-- In the step that accepts what was sent, so that no crash leaves one without the other.
local function bind_key(name, id, owner, fingerprint)
  if name ~= '' then
    local ttl = text(choose_key_ttl(owner))
    redis.call('SET', IDEMPOTENCY .. name, id .. ' ' .. fingerprint, 'PX', ttl)
  end
end

local function write_counts()
  for verdict, count in pairs(counts) do
    redis.call('HINCRBY', CACHE_COUNTS, verdict, count)
  end
end
