-- Accept jobs: each once, however often it is sent, while there is room.
-- ARGV: the sending process's channel, then for each job id, owner, upload's bytes, ms until its
-- deadline or 0, whether the process wants to hear of its end (1 or 0), whether it is bulk (1 or 0),
-- the digest of its content or '', whether it must be classified anew (1 or 0), how its answer shall
-- look or '', the name of its idempotency key or '', the fingerprint that binds that, …
-- Returns {jobs that wait, bytes of uploads, jobs ended per second or '', ms until a record expires
-- where an owner keeps too many or '', then for each job what became of it, as in
-- app.jobs.job.Reception}
local reply = {0, 0, redis.call('HGET', DRAIN, 'rate') or '', ''}
for i = 2, #ARGV, 11 do
  local id, size, patience = ARGV[i], ARGV[i + 2], tonumber(ARGV[i + 3])
  local content = ARGV[i + 6] ~= '' and ARGV[i + 6]
  local verdict = REFUSED
  local state = redis.call('HGET', JOB .. id, 'state')
  if state then
    verdict = state == 'completed' and ANSWERED or ACCEPTED
  elseif is_taken(ARGV[i + 9], id) then
    verdict = TAKEN
  elseif jobs < MAX_JOBS and bytes + size <= MAX_BYTES and not may_keep(ARGV[i + 1], 1) then
    verdict = CROWDED
    reply[4] = reply[4] ~= '' and reply[4] or find_relief(ARGV[i + 1]) or RESULT_TTL
  elseif jobs < MAX_JOBS and bytes + size <= MAX_BYTES then
    local record = {
      owner = ARGV[i + 1], attempts = '0', progress = '0', size = size,
      deadline = patience > 0 and now + patience,
      watchers = ARGV[i + 4] == '1' and ARGV[1] .. '!', bulk = ARGV[i + 5] == '1' and '1',
      options = ARGV[i + 8] ~= '' and ARGV[i + 8],
    }
    verdict = accept(id, record, content, ARGV[i + 7] == '1')
    bind_key(ARGV[i + 9], id, record.owner, ARGV[i + 10])
  end
  reply[#reply + 1] = verdict
end
write_counts()
-- A repetition writes nothing: it must be answered even by a Redis that has become full since.
if accepted > 0 then
  sweep_lists()
  conclude()
end
reply[1], reply[2] = jobs, bytes
return reply
