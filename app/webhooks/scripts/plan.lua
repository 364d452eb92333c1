-- Turn what the history says of ended jobs and batches into deliveries. That and the cursor move in
-- one step, so each event is planned once, however many senders there are and whenever one dies.
-- ARGV: entries to read at most
-- Returns {webhooks that are registered, entries read, the cursor, deliveries made, 1 if the senders
-- were told, deliveries dropped, since when events were lost, in ms, or nothing}
local registered = redis.call('ZCARD', WEBHOOKS)
if registered == 0 then
  return {0, 0, '', 0, 0, 0}
end
local now = now_ms()
local cursor = redis.call('GET', WEBHOOK_CURSOR) or '0-0'

-- The history is cut at its beginning: while the cursor's entry is there, so is all that follows.
local function find_loss()
  local is_cut
  if cursor == '0-0' then
    is_cut = redis.call('XLEN', HISTORY) >= HISTORY_LENGTH
  else
    is_cut = #redis.call('XRANGE', HISTORY, cursor, cursor) == 0
  end
  return is_cut and tonumber(string.match(cursor, '^%d+'))
end

-- Of the memory that Redis may use, deliveries take a quarter at most, shared by all webhooks: half of
-- that waits, half is the log, though most of these are the same ones. Each takes so many bytes in the
-- end (docs/webhooks.md).
local SHARE, DELIVERY_BYTES = 4, 2560

local function find_most_of_one()
  local limit = tonumber(string.match(redis.call('INFO', 'memory'), 'maxmemory:(%d+)'))
  if MAX_MEMORY > 0 and (limit == 0 or limit > MAX_MEMORY) then
    limit = MAX_MEMORY
  end
  return limit > 0 and math.ceil(limit / SHARE / DELIVERY_BYTES / 2 / registered) or math.huge
end

local most_of_one = find_most_of_one()
local most_waiting, most_logged = math.min(MAX_PENDING, most_of_one), math.min(LOG_LENGTH, most_of_one)

-- The enabled webhooks of an owner, read once.
local known = {}

local function webhooks_of(owner)
  if not known[owner] then
    known[owner] = {}
    for _, id in ipairs(redis.call('ZRANGE', OWNER_WEBHOOKS .. owner, 0, -1)) do
      local record = redis.call('HMGET', WEBHOOK .. id, 'enabled', 'events', 'created')
      if record[1] == '1' then
        table.insert(known[owner], {
          id = id, events = ' ' .. record[2] .. ' ', created = tonumber(record[3]),
          waiting = redis.call('ZCARD', WEBHOOK_DUE .. id), made = 0,
          due = tonumber(redis.call('ZSCORE', WEBHOOKS_DUE, id) or math.huge),
        })
      end
    end
  end
  return known[owner]
end

local dropped = 0

-- `about`: fields that say what has ended.
local function plan(webhook, entry, owner, kind, at, about)
  if webhook.waiting >= most_waiting then
    redis.call('HINCRBY', WEBHOOK .. webhook.id, 'dropped', 1)
    dropped = dropped + 1
    return
  end
  -- The same for the same event and webhook: receivers tell repetitions by it.
  local id = 'msg_' .. string.sub(redis.sha1hex(entry .. webhook.id), 1, 32)
  redis.call('HSET', DELIVERY .. id, 'webhook', webhook.id, 'owner', owner, 'type', kind,
    'time', at, 'state', 'pending', 'created', now, 'due', now, 'attempts', 0, 'tries', 0,
    unpack(about))
  redis.call('ZADD', WEBHOOK_DUE .. webhook.id, now, id)
  redis.call('ZADD', WEBHOOK_LOG .. webhook.id, redis.call('INCR', DELIVERY_NUMBER), id)
  webhook.waiting, webhook.made = webhook.waiting + 1, webhook.made + 1
end

local function cut_log(webhook)
  local excess = redis.call('ZCARD', WEBHOOK_LOG .. webhook.id) - most_logged
  local oldest = excess > 0 and redis.call('ZPOPMIN', WEBHOOK_LOG .. webhook.id, excess) or {}
  for i = 1, #oldest, 2 do
    if redis.call('HGET', DELIVERY .. oldest[i], 'state') ~= 'pending' then
      redis.call('UNLINK', DELIVERY .. oldest[i])
    end
  end
end

local ENDS = {completed = true, failed = true, cancelled = true}

local entries = redis.call('XRANGE', HISTORY, '(' .. cursor, '+', 'COUNT', ARGV[1])
local lost_since = #entries > 0 and find_loss()
for _, entry in ipairs(entries) do
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  -- Entries of earlier versions don't name the owner.
  local owner = ENDS[fields.state]
    and (fields.owner or redis.call('HGET', JOB .. fields.job, 'owner'))
  if owner then
    local kind = (fields.batch and 'batch.' or 'job.') .. fields.state
    local about = fields.batch and {'batch', fields.batch, 'counts', fields.counts}
      or {'job', fields.job}
    local at = tonumber(string.match(entry[1], '^%d+'))
    for _, webhook in ipairs(webhooks_of(owner)) do
      if at >= webhook.created and string.find(webhook.events, ' ' .. kind .. ' ', 1, true) then
        plan(webhook, entry[1], owner, kind, at, about)
      end
    end
  end
end

-- Of a webhook that has been due for a while, or is not yet, the senders know what they need: one of
-- them sends to it now, or waits for the end of its pause.
local made, is_new = 0, false
for _, webhooks in pairs(known) do
  for _, webhook in ipairs(webhooks) do
    if webhook.made > 0 then
      made = made + webhook.made
      cut_log(webhook)
      is_new = (reschedule(webhook.id) <= now and webhook.due > now) or is_new
    end
  end
end
if #entries > 0 then
  cursor = entries[#entries][1]
  redis.call('SET', WEBHOOK_CURSOR, cursor)
end
if lost_since then
  redis.call('SET', WEBHOOK_LOSS, lost_since, 'PX', LOSS_TTL)
end
if is_new then
  ring()
end
return {registered, #entries, cursor, made, is_new and 1 or 0, dropped, lost_since or nil}
