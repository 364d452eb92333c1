-- When memory will be there again.
-- Returns the ms until a record expires, nothing if none will yet
local MAX_OWNERS = 10

local relief
for _, owner in ipairs(redis.call('ZRANGE', OWNERS, 0, MAX_OWNERS - 1)) do
  local first = find_relief(owner)
  relief = first and math.min(relief or first, first) or relief
end
return relief
