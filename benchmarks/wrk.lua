-- Posts whole requests from files in turn, and looks at every answer.
-- Arguments: folder, number of requests, expected status, then the classes that may come first
-- (none: answers are not looked at, which wrk then does not parse either).
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local requests, position = {}, 0
local expected_status, classes, look = 200, {}, false
wrong = 0
example = ''

function init(args)
  local folder, count = args[1], tonumber(args[2])
  expected_status = tonumber(args[3])
  for i = 0, count - 1 do
    local file = assert(io.open(folder .. '/' .. i .. '.http', 'rb'))
    requests[i + 1] = file:read('*a')
    file:close()
  end
  for i = 4, #args do
    classes[args[i]] = true
    look = true
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function response(status, headers, body)
  local right = status == expected_status
  if right and look then
    right = classes[string.match(body, '"class_name"%s*:%s*"([^"]*)"') or ''] == true
  end
  if not right then
    wrong = wrong + 1
    if example == '' then
      example = status .. ' ' .. string.gsub(string.sub(body, 1, 120), '[^%w%p ]', ' ')
    end
  end
end

function done(summary, latency)
  local all_wrong, first = 0, ''
  for _, thread in ipairs(threads) do
    all_wrong = all_wrong + thread:get('wrong')
    first = thread:get('example')
  end
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT %d %d %d %d %d %d %d %d %s\n', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write, errors.timeout, all_wrong,
    latency:percentile(50), latency:percentile(99), latency.max, first))
end
