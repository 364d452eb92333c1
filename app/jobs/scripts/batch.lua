-- Accept the images of a batch: all of them or, where there is no room for all, none.
-- ARGV: batch id, owner, whether all must be classified anew (1 or 0), how the answers shall look or
-- '', the name of its idempotency key or '', the fingerprint that binds that, then for each job id,
-- upload's bytes, the digest of its content or '', its file's name or '', the sender's label or '', the
-- error of an image that was refused on its way or '', …
-- Returns {jobs that wait, bytes of uploads, jobs ended per second or '', ms until a record expires
-- where the owner keeps too many or '', what became of the batch, as in app.jobs.job.Reception, ids of
-- jobs that have ended: their uploads can go …}
local batch, owner, is_fresh = ARGV[1], ARGV[2], ARGV[3] == '1'
local options = ARGV[4] ~= '' and ARGV[4]
local key, fingerprint = ARGV[5], ARGV[6]
local FIRST, WORDS = 7, 6
local rate = redis.call('HGET', DRAIN, 'rate') or ''

if redis.call('EXISTS', BATCH .. batch) == 1 then
  return {jobs, bytes, rate, '', ACCEPTED}
elseif is_taken(key, batch) then
  return {jobs, bytes, rate, '', TAKEN}
end

local more_to_do, more_to_keep = 0, 0
for i = FIRST, #ARGV, WORDS do
  if ARGV[i + 5] == '' then
    more_to_do, more_to_keep = more_to_do + 1, more_to_keep + ARGV[i + 1]
  end
end
if jobs + more_to_do > MAX_JOBS or bytes + more_to_keep > MAX_BYTES then
  return {jobs, bytes, rate, '', REFUSED}
end
local count = (#ARGV - FIRST + 1) / WORDS
if not may_keep(owner, count) then
  return {jobs, bytes, rate, find_relief(owner) or RESULT_TTL, CROWDED}
end

local function given(word)
  return word ~= '' and word
end

local ids = {}
redis.call('HSET', BATCH .. batch, 'owner', owner, 'created', stamp, 'total', count)
for i = FIRST, #ARGV, WORDS do
  local id, failure = ARGV[i], given(ARGV[i + 5])
  local record = {
    owner = owner, attempts = '0', progress = '0', size = failure and '0' or ARGV[i + 1],
    bulk = '1',
    options = options, batch = batch, name = given(ARGV[i + 3]), label = given(ARGV[i + 4]),
  }
  if failure then
    write(id, record)
    finish(id, record, 'failed', '0', 'error', failure)
  else
    accept(id, record, given(ARGV[i + 2]), is_fresh)
  end
  ids[#ids + 1] = id
end
redis.call('RPUSH', BATCH_JOBS .. batch, unpack(ids))
bind_key(key, batch, owner, fingerprint)
write_counts()
sweep_lists()
conclude()
return {jobs, bytes, rate, '', ACCEPTED, unpack(freed)}
