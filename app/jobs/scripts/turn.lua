-- A worker process's turn: it reports outcomes and, unless it stops, claims the next batch.
-- ARGV: holder, jobs to claim at most, model, version, engine, identity; then outcomes, six words
-- each
-- Returns {{ids of ended jobs whose uploads can go …}, {claims as claim_jobs gives them}}
go_beyond_memory_limit()
local ended = finish_claims(ARGV, 7)
local given = {}
if tonumber(ARGV[2]) > 0 then
  local late
  given, late = claim_jobs(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
  for _, id in ipairs(late) do
    ended[#ended + 1] = id
  end
end
conclude()
for _, id in ipairs(freed) do
  ended[#ended + 1] = id
end
return {ended, given}
